#include "trainer/verify/gather.h"

#include <algorithm>
#include <numeric>

#include "kernels/core/host_view.h"

namespace jamba {

LogicalTensor::LogicalTensor(std::vector<std::int64_t> shape)
    : shape_(std::move(shape)),
      values_(static_cast<std::size_t>(
          std::accumulate(shape_.begin(), shape_.end(), std::int64_t{1}, std::multiplies<>()))) {}

void LogicalTensor::sum(Stream& stream, Communicator& world) {
  world.all_reduce(stream, Tensor(values_.data(), DType::f32, {std::ssize(values_)}));
}

LogicalTensor gather_parameter(Parameters& parameters, const ParameterSpec& spec,
                               const StretchValues& values) {
  LogicalTensor out(spec.shape);
  for (const Parameters::Entry& entry : parameters.entries()) {
    if (entry.spec.name != spec.name || !entry.counted) continue;
    const Parameters::Stretch mine = parameters.share(entry);
    if (mine.count == 0) continue;
    const HostView view(parameters.stream(), values(entry, mine), HostAccess::read);
    const float* from = view.ptr<float>();
    for_each_run(spec.shape, entry.shard,
                 [&](std::int64_t local, std::int64_t global, std::int64_t count) {
                   const std::int64_t first = std::max(local, mine.begin);
                   const std::int64_t last = std::min(local + count, mine.begin + mine.count);
                   if (first >= last) return;
                   std::copy_n(from + (first - mine.begin), last - first,
                               out.data() + global + (first - local));
                 });
  }
  out.sum(parameters.stream(), parameters.mesh().world());
  return out;
}

RowsPiece make_piece(Stream& stream, const Tensor& rows, std::int64_t first_col,
                     const std::function<std::int64_t(std::int64_t)>& row_of) {
  RowsPiece piece;
  piece.cols = rows.cols();
  piece.first_col = first_col;
  for (std::int64_t i = 0; i < rows.rows(); ++i) piece.row.push_back(row_of(i));
  const HostView view(stream, rows, HostAccess::read);
  visit_float(rows.dtype(), [&]<class T>(T) {
    for (std::int64_t i = 0; i < rows.numel(); ++i) {
      piece.values.push_back(static_cast<float>(view.ptr<T>()[i]));
    }
  });
  return piece;
}

LogicalTensor gather_rows(Stream& stream, Communicator& world, const Pieces& pieces,
                          const std::string& name, std::int64_t rows, std::int64_t cols) {
  LogicalTensor out({rows, cols});
  if (const auto it = pieces.find(name); it != pieces.end()) {
    const RowsPiece& piece = it->second;
    for (std::size_t i = 0; i < piece.row.size(); ++i) {
      std::copy_n(piece.values.data() + static_cast<std::int64_t>(i) * piece.cols, piece.cols,
                  out.data() + piece.row[i] * cols + piece.first_col);
    }
  }
  out.sum(stream, world);
  return out;
}

}  // namespace jamba

#include <cstring>

#include "kernels/core/parallel.h"
#include "kernels/moe/pack_rows.h"

namespace jamba::cpu {

namespace {

constexpr std::int64_t kRowBlock = 32;
constexpr std::int64_t kWeightBytes = sizeof(float);

const char* at(const Tensor& t, std::int64_t byte) {
  return static_cast<const char*>(t.raw()) + byte;
}
void copy(void* to, const void* from, std::int64_t bytes) {
  std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

}  // namespace

void pack_rows(Stream& stream, Tensor packed, Tensor rows, Tensor weight, Tensor index,
               std::int64_t k) {
  const std::int64_t row_bytes = rows.cols() * dtype_bytes(rows.dtype()), stride = packed.cols();
  const std::int32_t* place = index.ptr<std::int32_t>();
  char* to = static_cast<char*>(packed.raw());
  parallel_blocks(stream, packed.rows(), kRowBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      copy(to + i * stride, at(rows, place[i] / k * row_bytes), row_bytes);
      copy(to + i * stride + row_bytes, at(weight, place[i] * kWeightBytes), kWeightBytes);
    }
  });
}

void unpack_rows(Stream& stream, Tensor rows, Tensor weight, Tensor packed, Tensor index) {
  const std::int64_t row_bytes = rows.cols() * dtype_bytes(rows.dtype()), stride = packed.cols();
  const std::int32_t* place = index.ptr<std::int32_t>();
  char* to = static_cast<char*>(rows.raw());
  parallel_blocks(stream, rows.rows(), kRowBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t from = (place == nullptr ? i : place[i]) * stride;
      copy(to + i * row_bytes, at(packed, from), row_bytes);
      copy(weight.ptr<float>() + i, at(packed, from + row_bytes), kWeightBytes);
    }
  });
}

}  // namespace jamba::cpu

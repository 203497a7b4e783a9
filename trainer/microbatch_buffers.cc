#include "trainer/microbatch_buffers.h"

namespace jamba {

MicrobatchBuffers::MicrobatchBuffers(const Mesh& mesh, std::int64_t count, std::int64_t batch,
                                     std::int64_t seq_len)
    : mesh_(mesh),
      batch_(batch),
      seq_len_(seq_len),
      split_{seq_len, mesh.shape().cp},
      memory_((3 * seq_len + 4 * split_.seq(mesh.at().cp)) * count * batch *
              dtype_bytes(DType::i32)) {
  auto* next = static_cast<std::int32_t*>(memory_.data());
  const auto take = [&](std::int64_t seq) {
    const Tensor t(next, DType::i32, {batch, seq});
    next += batch * seq;
    return t;
  };
  const std::int64_t seq = split_.seq(mesh.at().cp);
  for (std::int64_t i = 0; i < count; ++i) {
    wholes_.push_back({take(seq_len), take(seq_len), take(seq_len)});
    parts_.push_back({take(seq), take(seq), take(seq), take(seq)});
  }
}

Microbatch MicrobatchBuffers::model_view(std::int64_t i,
                                         const std::optional<RouterNoise>& noise) const {
  const Batch& whole = wholes_[static_cast<std::size_t>(i)];
  const Part& part = parts_[static_cast<std::size_t>(i)];
  const std::int64_t seq = part.ids.dim(1), first = split_.first(mesh_.at().cp);
  for (std::int64_t b = 0; b < batch_; ++b) {
    for (std::int64_t t = 0; t < seq; ++t) {
      const std::int64_t from = b * seq_len_ + first + t, to = b * seq + t;
      const std::int32_t start = whole.doc_start.ptr<std::int32_t>()[from];
      part.ids.ptr<std::int32_t>()[to] = whole.ids.ptr<std::int32_t>()[from];
      part.labels.ptr<std::int32_t>()[to] = whole.labels.ptr<std::int32_t>()[from];
      part.doc_start.ptr<std::int32_t>()[to] = start - static_cast<std::int32_t>(first);
      part.positions.ptr<std::int32_t>()[to] = static_cast<std::int32_t>(first + t) - start;
    }
  }
  Microbatch out;
  out.sequences = {
      batch_, seq, part.doc_start, part.positions.view({batch_ * seq}), seq_len_, whole.doc_start};
  out.ids = part.ids;
  out.labels = part.labels;
  out.routing = {noise, {number(i) * batch_, seq_len_, first}};
  return out;
}

}  // namespace jamba

#include "trainer/microbatch_buffers.h"

namespace jamba {

MicrobatchBuffers::MicrobatchBuffers(std::int64_t count, std::int64_t batch, std::int64_t seq)
    : memory_(4 * count * batch * seq * dtype_bytes(DType::i32)) {
  auto* next = static_cast<std::int32_t*>(memory_.data());
  const auto take = [&] {
    const Tensor t(next, DType::i32, {batch, seq});
    next += batch * seq;
    return t;
  };
  for (std::int64_t i = 0; i < count; ++i) {
    token_batches_.push_back({take(), take(), take()});
    positions_.push_back(take());
  }
}

Microbatch MicrobatchBuffers::model_view(std::int64_t i) const {
  const Batch& tokens = token_batches_[static_cast<std::size_t>(i)];
  const Tensor& positions = positions_[static_cast<std::size_t>(i)];
  const std::int64_t batch = tokens.ids.dim(0), seq = tokens.ids.dim(1);
  for (std::int64_t t = 0; t < batch * seq; ++t) {
    positions.ptr<std::int32_t>()[t] =
        static_cast<std::int32_t>(t % seq) - tokens.doc_start.ptr<std::int32_t>()[t];
  }
  return {{batch, seq, tokens.doc_start, positions.view({batch * seq})}, tokens.ids, tokens.labels};
}

}  // namespace jamba

#include "parallel/tensor_parallel.h"

#include "kernels/pointwise/pointwise.h"

namespace jamba {

Tensor TensorRegion::gather(Stream& stream, Arena& scratch, Tensor x, std::int64_t tokens) const {
  if (!splits_rows_) return x;
  const Tensor all = scratch.allocate(x.dtype(), {x.rows() * tp_->size(), x.cols()});
  tp_->all_gather(stream, all, x);
  return all.slice(0, tokens);
}

TensorRegion::Partial TensorRegion::partial(Stream& stream, Arena& scratch, Tensor y,
                                            std::int64_t tokens) const {
  if (!splits_rows_ && y.dtype() == DType::f32) return {y, y};
  const std::int64_t rows = splits_rows_ ? y.rows() * tp_->size() : tokens;
  const Tensor all = scratch.allocate(DType::f32, {rows, y.cols()});
  zero(stream, all.slice(tokens, rows - tokens));
  return {all, all.slice(0, tokens)};
}

Tensor TensorRegion::own_rows(const Partial& partial) const {
  const std::int64_t rows = partial.padded.rows() / tp_->size();
  return splits_rows_ ? partial.padded.slice(tp_->rank() * rows, rows) : partial.padded;
}

PendingCollective TensorRegion::start_reduce(Stream& stream, const Partial& partial) const {
  return splits_rows_ ? tp_->start_reduce_scatter(stream, own_rows(partial), partial.padded)
                      : tp_->start_all_reduce(stream, partial.padded);
}

void TensorRegion::finish_reduce(Stream& stream, Tensor y, const Partial& partial,
                                 PendingCollective reducing) const {
  reducing.wait();
  if (y.raw() != partial.padded.raw()) cast(stream, y, own_rows(partial));
}

void TensorRegion::reduce(Stream& stream, Tensor y, const Partial& partial) const {
  finish_reduce(stream, y, partial, start_reduce(stream, partial));
}

}  // namespace jamba

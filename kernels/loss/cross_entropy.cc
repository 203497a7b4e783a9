#include "kernels/loss/cross_entropy.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(cross_entropy_forward);
JAMBA_DECLARE_BACKENDS(cross_entropy_combine);
JAMBA_DECLARE_BACKENDS(cross_entropy_backward);

void cross_entropy_forward(Stream& stream, Tensor stats, Tensor logits, Tensor labels,
                           std::int64_t first_id, std::int64_t vocab_size) {
  expect_float_tensor("logits", logits, {-1, -1});
  expect_tensor("stats", stats, DType::f32, {logits.rows(), kCrossEntropyStats});
  expect_tensor("labels", labels, DType::i32, {logits.rows()});
  JAMBA_CHECK(first_id >= 0 && first_id + logits.cols() <= vocab_size,
              "{} columns from {} on of a vocabulary of {}", logits.cols(), first_id, vocab_size);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(cross_entropy_forward, stream, stats, logits, labels, first_id, vocab_size);
}

void cross_entropy_combine(Stream& stream, Tensor loss, Tensor lse, Tensor stats_of_all,
                           Tensor labels) {
  expect_tensor("labels", labels, DType::i32, {-1});
  expect_tensor("stats_of_all", stats_of_all, DType::f32, {-1, labels.numel(), kCrossEntropyStats});
  expect_tensor("loss", loss, DType::f32, {labels.numel()});
  expect_tensor("lse", lse, DType::f32, {labels.numel()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(cross_entropy_combine, stream, loss, lse, stats_of_all, labels);
}

void cross_entropy_backward(Stream& stream, Tensor logits, Tensor lse, Tensor labels,
                            std::int64_t first_id, float scale) {
  expect_float_tensor("logits", logits, {-1, -1});
  expect_tensor("lse", lse, DType::f32, {logits.rows()});
  expect_tensor("labels", labels, DType::i32, {logits.rows()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(cross_entropy_backward, stream, logits, lse, labels, first_id, scale);
}

}  // namespace jamba

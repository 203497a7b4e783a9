#include "kernels/loss/cross_entropy.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(cross_entropy_forward);
JAMBA_DECLARE_BACKENDS(cross_entropy_backward);

void cross_entropy_forward(Stream& stream, Tensor loss, Tensor lse, Tensor logits, Tensor labels) {
  expect_float_tensor("logits", logits, {-1, -1});
  expect_tensor("loss", loss, DType::f32, {logits.rows()});
  expect_tensor("lse", lse, DType::f32, {logits.rows()});
  expect_tensor("labels", labels, DType::i32, {logits.rows()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(cross_entropy_forward, stream, loss, lse, logits, labels);
}

void cross_entropy_backward(Stream& stream, Tensor logits, Tensor lse, Tensor labels, float scale) {
  expect_float_tensor("logits", logits, {-1, -1});
  expect_tensor("lse", lse, DType::f32, {logits.rows()});
  expect_tensor("labels", labels, DType::i32, {logits.rows()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(cross_entropy_backward, stream, logits, lse, labels, scale);
}

}  // namespace jamba

#include "kernels/norm/rms_norm.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(rms_norm_forward);
JAMBA_DECLARE_BACKENDS(rms_norm_backward);

void rms_norm_forward(Stream& stream, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor residual,
                      Tensor w, float eps) {
  const std::int64_t tokens = x.rows(), model = x.cols();
  expect_float_tensor("x", x, {tokens, model});
  expect_tensor("y", y, x.dtype(), {tokens, model});
  expect_tensor("rstd", rstd, DType::f32, {tokens});
  expect_float_tensor("w", w, {model});
  JAMBA_CHECK(residual.present() == sum.present(), "residual and sum come together");
  if (residual.present()) {
    expect_tensor("residual", residual, x.dtype(), {tokens, model});
    expect_tensor("sum", sum, x.dtype(), {tokens, model});
  }
  JAMBA_CHECK(eps >= 0, "eps {}", eps);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(rms_norm_forward, stream, y, sum, rstd, x, residual, w, eps);
}

void rms_norm_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw, Tensor dy,
                       Tensor d_residual, Tensor x, Tensor rstd, Tensor w) {
  const std::int64_t tokens = x.rows(), model = x.cols();
  expect_float_tensor("x", x, {tokens, model});
  expect_tensor("dx", dx, x.dtype(), {tokens, model});
  expect_tensor("dy", dy, x.dtype(), {tokens, model});
  if (d_residual.present()) expect_tensor("d_residual", d_residual, x.dtype(), {tokens, model});
  expect_tensor("rstd", rstd, DType::f32, {tokens});
  expect_float_tensor("w", w, {model});
  expect_tensor("dw", dw, DType::f32, {model});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(rms_norm_backward, stream, scratch, dx, dw, dy, d_residual, x, rstd, w);
}

}  // namespace jamba

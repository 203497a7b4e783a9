#include "kernels/linear/matmul.h"

#include "kernels/core/dispatch.h"
#include "kernels/linear/expect_result.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(linear_forward);
JAMBA_DECLARE_BACKENDS(linear_backward_input);
JAMBA_DECLARE_BACKENDS(linear_backward_weight);
JAMBA_DECLARE_BACKENDS(bias_backward);

namespace {

double flops(std::int64_t tokens, const Tensor& w) {
  return 2.0 * static_cast<double>(tokens) * static_cast<double>(w.numel());
}

}  // namespace

void linear_forward(Stream& stream, Arena& scratch, Tensor y, Tensor x, Tensor w, Tensor bias) {
  expect_float_tensor("w", w, {-1, -1});
  expect_tensor("x", x, w.dtype(), {-1, w.dim(1)});
  expect_result("y", y, w.dtype(), {x.dim(0), w.dim(0)});
  if (bias.present()) {
    expect_tensor("bias", bias, y.dtype(), {w.dim(0)});
    JAMBA_CHECK(w.dim(1) > 0, "a bias for w {}, which takes no inputs", w.describe());
  }
  ProfileScope scope(stream.profile(), Part::matmul);
  stream.profile().matmul_flops += flops(x.dim(0), w);
  JAMBA_DISPATCH(linear_forward, stream, scratch, y, x, w, bias);
}

void linear_backward_input(Stream& stream, Arena& scratch, Tensor dx, Tensor dy, Tensor w,
                           Write write) {
  expect_float_tensor("w", w, {-1, -1});
  expect_tensor("dy", dy, w.dtype(), {-1, w.dim(0)});
  expect_result("dx", dx, w.dtype(), {dy.dim(0), w.dim(1)});
  ProfileScope scope(stream.profile(), Part::matmul);
  stream.profile().matmul_flops += flops(dy.dim(0), w);
  JAMBA_DISPATCH(linear_backward_input, stream, scratch, dx, dy, w, write);
}

void linear_backward_weight(Stream& stream, Arena& scratch, Tensor dw, Tensor dy, Tensor x,
                            Write write) {
  expect_tensor("dw", dw, DType::f32, {-1, -1});
  expect_float_tensor("dy", dy, {-1, dw.dim(0)});
  expect_tensor("x", x, dy.dtype(), {dy.dim(0), dw.dim(1)});
  ProfileScope scope(stream.profile(), Part::matmul);
  stream.profile().matmul_flops += flops(dy.dim(0), dw);
  JAMBA_DISPATCH(linear_backward_weight, stream, scratch, dw, dy, x, write);
}

void bias_backward(Stream& stream, Arena& scratch, Tensor dbias, Tensor dy) {
  expect_float_tensor("dy", dy, {-1, -1});
  expect_tensor("dbias", dbias, DType::f32, {dy.dim(1)});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(bias_backward, stream, scratch, dbias, dy);
}

}  // namespace jamba

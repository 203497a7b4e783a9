#include "kernels/pointwise/swiglu.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(swiglu_forward);
JAMBA_DECLARE_BACKENDS(swiglu_backward);

namespace {

void check(const Tensor& y, const Tensor& gate_up, const Tensor& row_scale) {
  expect_float_tensor("y", y, {-1, -1});
  expect_tensor("gate_up", gate_up, y.dtype(), {y.dim(0), 2 * y.dim(1)});
  if (row_scale.present()) expect_tensor("row_scale", row_scale, DType::f32, {y.dim(0)});
}

}  // namespace

void swiglu_forward(Stream& stream, Tensor y, Tensor gate_up, Tensor row_scale) {
  check(y, gate_up, row_scale);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(swiglu_forward, stream, y, gate_up, row_scale);
}

void swiglu_backward(Stream& stream, Tensor dgate_up, Tensor y, Tensor drow_scale, Tensor dy,
                     Tensor gate_up, Tensor row_scale) {
  check(y, gate_up, row_scale);
  expect_tensor("dy", dy, y.dtype(), {y.dim(0), y.dim(1)});
  expect_tensor("dgate_up", dgate_up, y.dtype(), {y.dim(0), 2 * y.dim(1)});
  JAMBA_CHECK(drow_scale.present() == row_scale.present(), "row_scale goes with its gradient");
  if (drow_scale.present()) expect_tensor("drow_scale", drow_scale, DType::f32, {y.dim(0)});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(swiglu_backward, stream, dgate_up, y, drow_scale, dy, gate_up, row_scale);
}

}  // namespace jamba

#include "kernels/pointwise/swiglu.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(swiglu_forward);
JAMBA_DECLARE_BACKENDS(swiglu_backward);

void swiglu_forward(Stream& stream, Tensor y, Tensor gate_up) {
  expect_float_tensor("y", y, {-1, -1});
  expect_tensor("gate_up", gate_up, y.dtype(), {y.dim(0), 2 * y.dim(1)});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(swiglu_forward, stream, y, gate_up);
}

void swiglu_backward(Stream& stream, Tensor dgate_up, Tensor y, Tensor dy, Tensor gate_up) {
  expect_float_tensor("dy", dy, {-1, -1});
  expect_tensor("y", y, dy.dtype(), {dy.dim(0), dy.dim(1)});
  expect_tensor("gate_up", gate_up, dy.dtype(), {dy.dim(0), 2 * dy.dim(1)});
  expect_tensor("dgate_up", dgate_up, dy.dtype(), {dy.dim(0), 2 * dy.dim(1)});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(swiglu_backward, stream, dgate_up, y, dy, gate_up);
}

}  // namespace jamba

#include "kernels/optim/adamw.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(adamw);

void adamw(Stream& stream, Tensor weight, Tensor rest, Tensor m, Tensor v, Tensor grad,
           const AdamWStep& step) {
  expect_tensor("weight", weight, rest.present() ? DType::bf16 : DType::f32, {-1});
  const std::int64_t n = weight.dim(0);
  expect_tensor("m", m, DType::f32, {n});
  expect_tensor("v", v, DType::f32, {n});
  expect_tensor("grad", grad, DType::f32, {n});
  if (rest.present()) expect_tensor("rest", rest, DType::u16, {n});
  JAMBA_CHECK(step.bias_correction1 > 0 && step.bias_correction2 > 0,
              "bias corrections {} and {} must be positive: 1 - beta^step with step from 1",
              step.bias_correction1, step.bias_correction2);
  ProfileScope scope(stream.profile(), Part::optimizer);
  JAMBA_DISPATCH(adamw, stream, weight, rest, m, v, grad, step);
}

}  // namespace jamba

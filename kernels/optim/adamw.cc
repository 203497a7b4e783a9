#include "kernels/optim/adamw.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(adamw);

void adamw(Stream& stream, Tensor weight, Tensor m, Tensor v, Tensor grad, Tensor compute,
           const AdamWStep& step) {
  expect_tensor("weight", weight, DType::f32, {-1});
  const std::int64_t n = weight.dim(0);
  expect_tensor("m", m, DType::f32, {n});
  expect_tensor("v", v, DType::f32, {n});
  expect_tensor("grad", grad, DType::f32, {n});
  if (compute.present()) expect_tensor("compute", compute, DType::bf16, {n});
  JAMBA_CHECK(step.bias_correction1 > 0 && step.bias_correction2 > 0,
              "bias corrections {} and {} must be positive: 1 - beta^step with step from 1",
              step.bias_correction1, step.bias_correction2);
  ProfileScope scope(stream.profile(), Part::optimizer);
  JAMBA_DISPATCH(adamw, stream, weight, m, v, grad, compute, step);
}

}  // namespace jamba

#include "kernels/optim/weight_halves.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(split_weight);
JAMBA_DECLARE_BACKENDS(join_weight);

namespace {

void check(const Tensor& weight, const Tensor& value, const Tensor& rest) {
  expect_tensor("weight", weight, DType::f32, {-1});
  expect_tensor("value", value, DType::bf16, {weight.dim(0)});
  expect_tensor("rest", rest, DType::u16, {weight.dim(0)});
}

}  // namespace

void split_weight(Stream& stream, Tensor value, Tensor rest, Tensor weight) {
  check(weight, value, rest);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(split_weight, stream, value, rest, weight);
}

void join_weight(Stream& stream, Tensor weight, Tensor value, Tensor rest) {
  check(weight, value, rest);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(join_weight, stream, weight, value, rest);
}

}  // namespace jamba

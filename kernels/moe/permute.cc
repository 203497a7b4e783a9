#include "kernels/moe/permute.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(build_permutation);
JAMBA_DECLARE_BACKENDS(permute_forward);
JAMBA_DECLARE_BACKENDS(permute_backward);
JAMBA_DECLARE_BACKENDS(combine_forward);
JAMBA_DECLARE_BACKENDS(combine_backward);

void build_permutation(Stream& stream, Tensor row_of_slot, Tensor slot_of_row,
                       std::span<std::int64_t> offsets, Tensor index) {
  expect_tensor("index", index, DType::i32, {-1, -1});
  expect_tensor("row_of_slot", row_of_slot, DType::i32, {index.numel()});
  expect_tensor("slot_of_row", slot_of_row, DType::i32, {index.numel()});
  JAMBA_CHECK(offsets.size() >= 2, "{} offsets for experts + 1", offsets.size());
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(build_permutation, stream, row_of_slot, slot_of_row, offsets, index);
}

void permute_forward(Stream& stream, Tensor rows, Tensor x, Tensor slot_of_row, std::int64_t k) {
  expect_float_tensor("x", x, {-1, -1});
  expect_tensor("rows", rows, x.dtype(), {x.rows() * k, x.cols()});
  expect_tensor("slot_of_row", slot_of_row, DType::i32, {x.rows() * k});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(permute_forward, stream, rows, x, slot_of_row, k);
}

void permute_backward(Stream& stream, Tensor dx, Tensor drows, Tensor row_of_slot, std::int64_t k) {
  expect_float_tensor("dx", dx, {-1, -1});
  expect_tensor("drows", drows, dx.dtype(), {dx.rows() * k, dx.cols()});
  expect_tensor("row_of_slot", row_of_slot, DType::i32, {dx.rows() * k});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(permute_backward, stream, dx, drows, row_of_slot, k);
}

void combine_forward(Stream& stream, Tensor y, Tensor rows, Tensor row_of_slot, Tensor weight) {
  expect_float_tensor("y", y, {-1, -1});
  expect_tensor("weight", weight, DType::f32, {y.rows(), -1});
  expect_tensor("rows", rows, y.dtype(), {weight.numel(), y.cols()});
  expect_tensor("row_of_slot", row_of_slot, DType::i32, {weight.numel()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(combine_forward, stream, y, rows, row_of_slot, weight);
}

void combine_backward(Stream& stream, Tensor drows, Tensor dweight, Tensor dy, Tensor rows,
                      Tensor row_of_slot, Tensor weight) {
  expect_float_tensor("dy", dy, {-1, -1});
  expect_tensor("weight", weight, DType::f32, {dy.rows(), -1});
  expect_tensor("dweight", dweight, DType::f32, {dy.rows(), weight.cols()});
  expect_tensor("rows", rows, dy.dtype(), {weight.numel(), dy.cols()});
  expect_tensor("drows", drows, dy.dtype(), {weight.numel(), dy.cols()});
  expect_tensor("row_of_slot", row_of_slot, DType::i32, {weight.numel()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(combine_backward, stream, drows, dweight, dy, rows, row_of_slot, weight);
}

}  // namespace jamba

#include "kernels/moe/permute.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(build_permutation);
JAMBA_DECLARE_BACKENDS(permute_forward);
JAMBA_DECLARE_BACKENDS(permute_backward);
JAMBA_DECLARE_BACKENDS(permute_weights_forward);
JAMBA_DECLARE_BACKENDS(permute_weights_backward);

void build_permutation(Stream& stream, Tensor row_of_slot, Tensor slot_of_row,
                       std::span<std::int64_t> offsets, Tensor index, std::int64_t capacity) {
  expect_tensor("index", index, DType::i32, {-1, -1});
  expect_tensor("row_of_slot", row_of_slot, DType::i32, {index.numel()});
  expect_tensor("slot_of_row", slot_of_row, DType::i32, {index.numel()});
  JAMBA_CHECK(offsets.size() >= 2, "{} offsets for experts + 1", offsets.size());
  JAMBA_CHECK(capacity >= 0, "capacity {}", capacity);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(build_permutation, stream, row_of_slot, slot_of_row, offsets, index, capacity);
}

namespace {

/// One int32 a row, or more.
void expect_map(const char* what, const Tensor& map, std::int64_t num_rows) {
  expect_tensor(what, map, DType::i32, {-1});
  JAMBA_CHECK(map.numel() >= num_rows, "{} for {} rows: {}", what, num_rows, map.describe());
}

}  // namespace

void permute_forward(Stream& stream, Tensor rows, Tensor x, Tensor slot_of_row, std::int64_t k) {
  expect_float_tensor("x", x, {-1, -1});
  expect_tensor("rows", rows, x.dtype(), {-1, x.cols()});
  expect_map("slot_of_row", slot_of_row, rows.rows());
  JAMBA_CHECK(k >= 1, "k {}", k);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(permute_forward, stream, rows, x, slot_of_row, k);
}

void permute_backward(Stream& stream, Tensor dx, Tensor drows, Tensor row_of_slot, std::int64_t k) {
  expect_float_tensor("dx", dx, {-1, -1});
  expect_tensor("drows", drows, dx.dtype(), {-1, dx.cols()});
  expect_tensor("row_of_slot", row_of_slot, DType::i32, {dx.rows() * k});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(permute_backward, stream, dx, drows, row_of_slot, k);
}

void permute_weights_forward(Stream& stream, Tensor row_weight, Tensor weight, Tensor slot_of_row) {
  expect_tensor("row_weight", row_weight, DType::f32, {-1});
  expect_tensor("weight", weight, DType::f32, {-1, -1});
  expect_map("slot_of_row", slot_of_row, row_weight.numel());
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(permute_weights_forward, stream, row_weight, weight, slot_of_row);
}

void permute_weights_backward(Stream& stream, Tensor dweight, Tensor drow_weight,
                              Tensor row_of_slot) {
  expect_tensor("dweight", dweight, DType::f32, {-1, -1});
  expect_tensor("drow_weight", drow_weight, DType::f32, {-1});
  expect_tensor("row_of_slot", row_of_slot, DType::i32, {dweight.numel()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(permute_weights_backward, stream, dweight, drow_weight, row_of_slot);
}

}  // namespace jamba

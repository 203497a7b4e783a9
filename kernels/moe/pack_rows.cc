#include "kernels/moe/pack_rows.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(pack_rows);
JAMBA_DECLARE_BACKENDS(unpack_rows);

namespace {

/// num_rows: of the side that the index is for.
void check(const Tensor& packed, const Tensor& rows, const Tensor& weight, const Tensor& index,
           std::int64_t num_weights, std::int64_t num_rows) {
  expect_float_tensor("rows", rows, {-1, -1});
  expect_tensor("packed", packed, DType::u8, {-1, packed_row_bytes(rows.dtype(), rows.cols())});
  expect_tensor("weight", weight, DType::f32, {num_weights});
  if (index.absent()) return;
  expect_tensor("index", index, DType::i32, {-1});
  JAMBA_CHECK(index.numel() >= num_rows, "index {} for {} rows", index.describe(), num_rows);
}

}  // namespace

std::int64_t packed_row_bytes(DType dtype, std::int64_t model) {
  return model * dtype_bytes(dtype) + dtype_bytes(DType::f32);
}

void pack_rows(Stream& stream, Tensor packed, Tensor rows, Tensor weight, Tensor index,
               std::int64_t k) {
  JAMBA_CHECK(index.present() && k >= 1, "index {}, k {}", index.describe(), k);
  check(packed, rows, weight, index, rows.rows() * k, packed.rows());
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(pack_rows, stream, packed, rows, weight, index, k);
}

void unpack_rows(Stream& stream, Tensor rows, Tensor weight, Tensor packed, Tensor index) {
  check(packed, rows, weight, index, rows.rows(), rows.rows());
  JAMBA_CHECK(index.present() || packed.rows() >= rows.rows(), "{} rows from {}", rows.rows(),
              packed.describe());
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(unpack_rows, stream, rows, weight, packed, index);
}

}  // namespace jamba

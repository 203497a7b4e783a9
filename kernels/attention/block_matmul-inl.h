// Products of small matrices that lie in the first or second level cache, in float32.
// Included once per target.

#if defined(JAMBA_KERNELS_ATTENTION_BLOCK_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef JAMBA_KERNELS_ATTENTION_BLOCK_MATMUL_INL_H_
#undef JAMBA_KERNELS_ATTENTION_BLOCK_MATMUL_INL_H_
#else
#define JAMBA_KERNELS_ATTENTION_BLOCK_MATMUL_INL_H_
#endif

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {

/// How the left factor lies in memory: element (i, k) at a[i * stride + k] or a[k * stride + i].
enum class Left { row_major, column_major };
/// Whether a product replaces the result or adds to it.
enum class Store { overwrite, add };

/// A row-major matrix, or the left factor, inside a larger buffer.
struct ConstBlock {
  const float* data;
  std::int64_t stride;
};
struct Block {
  float* data;
  std::int64_t stride;
};

/// Rows of a register tile two vectors wide: 6 x 2 sums fill 16 registers, 12 x 2 fill 32.
inline constexpr int kTileRows = HWY_MAX_BYTES >= 64 ? 12 : 6;

template <Left kLeft, Store kStore, int kRows, int kVectors>
HWY_INLINE void multiply_tile(Block c, ConstBlock a, ConstBlock b, std::int64_t depth) {
  VF sum[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = kStore == Store::add ? load(c.data + i * c.stride + v * lanes()) : hn::Zero(DF());
    }
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    VF right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = load(b.data + k * b.stride + v * lanes());
    for (int i = 0; i < kRows; ++i) {
      const VF left = hn::Set(
          DF(), kLeft == Left::row_major ? a.data[i * a.stride + k] : a.data[k * a.stride + i]);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(left, right[v], sum[i][v]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) store(sum[i][v], c.data + i * c.stride + v * lanes());
  }
}

/// Tiles of kRows for as long as they fit; returns the first row that is left.
template <Left kLeft, Store kStore, int kRows, int kVectors>
HWY_INLINE std::int64_t multiply_rows(Block c, ConstBlock a, ConstBlock b, std::int64_t depth,
                                      std::int64_t i, std::int64_t rows) {
  for (; i + kRows <= rows; i += kRows) {
    const std::int64_t step = kLeft == Left::row_major ? a.stride : 1;
    multiply_tile<kLeft, kStore, kRows, kVectors>({c.data + i * c.stride, c.stride},
                                                  {a.data + i * step, a.stride}, b, depth);
  }
  return i;
}

template <Left kLeft, Store kStore, int kVectors>
void multiply_panel(Block c, ConstBlock a, ConstBlock b, std::int64_t rows, std::int64_t depth) {
  std::int64_t i = 0;
  i = multiply_rows<kLeft, kStore, kTileRows, kVectors>(c, a, b, depth, i, rows);
  i = multiply_rows<kLeft, kStore, 4, kVectors>(c, a, b, depth, i, rows);
  i = multiply_rows<kLeft, kStore, 2, kVectors>(c, a, b, depth, i, rows);
  multiply_rows<kLeft, kStore, 1, kVectors>(c, a, b, depth, i, rows);
}

/// c = a b, or c += a b: [rows, cols] from [rows, depth] and [depth, cols].
/// cols is a multiple of lanes(). Every element of c sums over depth in ascending order by itself,
/// so that its bits do not depend on rows or cols.
template <Left kLeft, Store kStore>
HWY_INLINE void block_matmul(Block c, ConstBlock a, ConstBlock b, std::int64_t rows,
                             std::int64_t cols, std::int64_t depth) {
  std::int64_t j = 0;
  for (; j + 2 * lanes() <= cols; j += 2 * lanes()) {
    multiply_panel<kLeft, kStore, 2>({c.data + j, c.stride}, a, {b.data + j, b.stride}, rows,
                                     depth);
  }
  if (j < cols) {
    multiply_panel<kLeft, kStore, 1>({c.data + j, c.stride}, a, {b.data + j, b.stride}, rows,
                                     depth);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

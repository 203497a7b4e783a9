// Rows of heads between tensors and an attention block's float32 scratch. Included once per target.

#if defined(JAMBA_KERNELS_ATTENTION_BLOCK_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef JAMBA_KERNELS_ATTENTION_BLOCK_ROWS_INL_H_
#undef JAMBA_KERNELS_ATTENTION_BLOCK_ROWS_INL_H_
#else
#define JAMBA_KERNELS_ATTENTION_BLOCK_ROWS_INL_H_
#endif

#include <algorithm>

#include "kernels/attention/query_block.h"
#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {

/// Scratch matrices hold one query row a column: statistics over keys are then plain vector
/// operations, and keys and values are read as they lie. The stride is not a power of two, which
/// would crowd all rows into a few sets of the first-level cache.
inline constexpr std::int64_t kRowStride = kBlockRows + 16;

HWY_INLINE std::int64_t round_up_lanes(std::int64_t n) {
  return (n + lanes() - 1) / lanes() * lanes();
}

/// Where row r of the block lies in a [tokens, num_heads * head_dim] tensor.
template <class T>
HWY_INLINE T* row_of(T* tensor, const AttentionShape& s, const QueryBlock& block, std::int64_t r) {
  const std::int64_t token = block.batch * s.seq + block.position(r);
  return tensor + (token * s.num_heads + block.head(r)) * s.head_dim;
}

HWY_INLINE std::int64_t statistic_of(const AttentionShape& s, const QueryBlock& block,
                                     std::int64_t r) {
  return (block.batch * s.num_heads + block.head(r)) * s.seq + block.position(r);
}

/// to[i * kRowStride + r] = factor * row r, element i. Columns up to a whole vector become 0.
template <class T>
void gather_transposed(float* to, const T* from, const AttentionShape& s, const QueryBlock& block,
                       float factor) {
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const T* row = row_of(from, s, block, r);
    for (std::int64_t i = 0; i < s.head_dim; ++i) {
      to[i * kRowStride + r] = factor * static_cast<float>(row[i]);
    }
  }
  for (std::int64_t i = 0; i < s.head_dim; ++i) {
    std::fill(to + i * kRowStride + block.rows, to + i * kRowStride + round_up_lanes(block.rows),
              0.0f);
  }
}

/// row r, element i = from[i * kRowStride + r] * factor[r].
template <class T>
void scatter_transposed(T* to, const float* from, const float* factor, const AttentionShape& s,
                        const QueryBlock& block) {
  for (std::int64_t r = 0; r < block.rows; ++r) {
    T* row = row_of(to, s, block, r);
    for (std::int64_t i = 0; i < s.head_dim; ++i) {
      row[i] = T(from[i * kRowStride + r] * factor[r]);
    }
  }
}

/// Copies one head's row to float32. The destination has room for whole vectors; they are filled
/// with zeros.
template <class T>
HWY_INLINE void copy_row(float* to, const T* from, std::int64_t head_dim) {
  for_lanes(head_dim,
            [&](std::int64_t i, std::int64_t n) HWY_ATTR { store(load_n(from + i, n), to + i); });
}

/// Copies keys or values [begin, end) of the block's kv head, `stride` floats apart.
template <class T>
void copy_keys(float* to, std::int64_t stride, const T* from, const AttentionShape& s,
               const QueryBlock& block, std::int64_t begin, std::int64_t end) {
  for (std::int64_t j = begin; j < end; ++j) {
    const std::int64_t token = block.batch * s.seq_keys + j;
    const T* row = from + (token * s.num_kv_heads + block.kv_head) * s.head_dim;
    copy_row(to + (j - begin) * stride, row, s.head_dim);
  }
}

/// Lanes whose row does not see key j.
using VI = hn::Vec<DI32>;
HWY_INLINE auto hidden(VI low, VI high, std::int64_t j) {
  const VI key = hn::Set(DI32(), static_cast<std::int32_t>(j));
  return hn::RebindMask(DF(), hn::Or(hn::Lt(key, low), hn::Gt(key, high)));
}

}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

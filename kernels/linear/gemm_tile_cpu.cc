#include "kernels/linear/gemm_tile_cpu.h"

#include <algorithm>

#include "kernels/linear/gemm_bf16_avx512.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear/gemm_tile_cpu.cc"
#include <hwy/foreach_target.h>

#include <hwy/cache_control.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

using cpu::Form;
using cpu::GemmArgs;
using cpu::kKBlock;
using cpu::kPadding;
using cpu::Multiply;
using cpu::TileRange;

// A panel's unit is 4 bytes: one number in float32 or, for the bfloat16 kernel, two numbers that
// follow each other in k. So all packing moves whole units, and k counts units below.

// The kernel keeps kRows x 2 vectors of the result in registers: 12 of AVX2's 16, 24 of AVX-512's
// 32, next to two vectors of b and one broadcast of a.
constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(DF()));
constexpr std::int64_t kRows = kLanes == 16 ? cpu::kBf16KernelRows : 6;
constexpr std::int64_t kCols = 2 * kLanes;
static_assert(cpu::kTileRowUnit % kRows == 0 && cpu::kTileColUnit % kCols == 0);

/// Packed a: strips of kRows rows, each [kRows, kKBlock] (k_last) or [kKBlock, kRows].
constexpr std::int64_t kStripA = kRows * kKBlock + kPadding;
/// Packed b: strips [kKBlock, kCols].
constexpr std::int64_t kStripB = kCols * kKBlock + kPadding;

/// out[kUsed, kCols] = (out +) strip of a times strip of b, rows of out `stride` apart.
template <int kUsed, bool kKLast>
void multiply(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, std::int64_t k,
              float* HWY_RESTRICT out, std::int64_t stride, bool accumulate) {
  const DF d;
  VF c[kUsed][2];
#pragma GCC unroll 12
  for (int r = 0; r < kUsed; ++r) {
    hwy::Prefetch(out + r * stride);
    hwy::Prefetch(out + r * stride + kCols - 1);
    c[r][0] = c[r][1] = hn::Zero(d);
  }
  for (std::int64_t i = 0; i < k; ++i) {
    const VF b0 = hn::Load(d, b + i * kCols), b1 = hn::Load(d, b + i * kCols + kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kUsed; ++r) {
      const VF v = hn::Set(d, kKLast ? a[r * kKBlock + i] : a[i * kRows + r]);
      c[r][0] = hn::MulAdd(v, b0, c[r][0]);
      c[r][1] = hn::MulAdd(v, b1, c[r][1]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kUsed; ++r) {
    float* row = out + r * stride;
    if (accumulate) {
      c[r][0] = hn::Add(c[r][0], load(row));
      c[r][1] = hn::Add(c[r][1], load(row + kLanes));
    }
    store(c[r][0], row);
    store(c[r][1], row + kLanes);
  }
}

/// The kernel for `used` rows, 1 to kRows: few rows (decoding) must not cost as much as many.
template <bool kKLast, int kUsed = static_cast<int>(kRows)>
Multiply multiply_for(std::int64_t used) {
  if constexpr (kUsed > 1) {
    if (used < kUsed) return multiply_for<kKLast, kUsed - 1>(used);
  }
  return multiply<kUsed, kKLast>;
}

/// a[rows, k] with rows `stride` apart -> strips [kRows, kKBlock].
template <class T>
void pack_a_k_last(const T* a, std::int64_t stride, std::int64_t rows, std::int64_t k, float* out) {
  for (std::int64_t r = 0; r < rows; ++r) {
    float* to = out + r / kRows * kStripA + r % kRows * kKBlock;
    const T* from = a + r * stride;
    for_lanes(k, [&](std::int64_t i, std::int64_t n)
                     HWY_ATTR { store_n(load_n(from + i, n), to + i, n); });
  }
}

/// Units of a matrix [k, columns]: rows of it, converted to float32.
template <class T>
struct Rows {
  const T* data;
  std::int64_t stride;

  HWY_INLINE VF load(std::int64_t unit, std::int64_t j) const {
    return HWY_NAMESPACE::load(data + unit * stride + j);
  }
  HWY_INLINE float one(std::int64_t unit, std::int64_t j) const {
    return static_cast<float>(data[unit * stride + j]);
  }
};

/// The same for the bfloat16 kernel: two rows each; an odd k ends with zeros.
struct RowPairs {
  const bfloat16* data;
  std::int64_t stride, k;

  HWY_INLINE VF load(std::int64_t unit, std::int64_t j) const {
    const DU32 du;
    const bfloat16* even = data + 2 * unit * stride + j;
    const auto low = hn::ShiftRight<16>(hn::BitCast(du, HWY_NAMESPACE::load(even)));
    if (2 * unit + 1 == k) return hn::BitCast(DF(), low);
    return hn::BitCast(DF(), hn::Or(low, hn::BitCast(du, HWY_NAMESPACE::load(even + stride))));
  }
  HWY_INLINE float one(std::int64_t unit, std::int64_t j) const {
    const bfloat16* even = data + 2 * unit * stride + j;
    const std::uint32_t low = even->bits;
    const std::uint32_t high = 2 * unit + 1 == k ? 0 : even[stride].bits;
    return std::bit_cast<float>(high << 16 | low);
  }
};

/// a[k, rows] -> strips [kKBlock, kRows]. Whole vectors are stored where only kRows numbers count:
/// the next k overwrites the rest, and the padding takes it after the last one.
template <class Units>
void pack_a_k_first(const Units& a, std::int64_t rows, std::int64_t k, float* out) {
  constexpr std::int64_t kRead = (kRows + kLanes - 1) / kLanes * kLanes;
  for (std::int64_t i = 0; i < k; ++i) {
    float* to = out + i * kRows;
    std::int64_t r = 0;
    for (; r + kRead <= rows; r += kRows, to += kStripA) {
      for (std::int64_t j = 0; j < kRows; j += kLanes) store(a.load(i, r + j), to + j);
    }
    for (; r < rows; r += kRows, to += kStripA) {
      for (std::int64_t j = r; j < std::min(rows, r + kRows); ++j) to[j - r] = a.one(i, j);
    }
  }
}

/// b[k, cols] -> strips [kKBlock, kCols], zeros right of cols. Rows are read in one go over several
/// strips: single strips of a wide matrix would touch a new page and the same cache set every time.
template <class Units>
void pack_b_k_first(const Units& b, std::int64_t cols, std::int64_t k, float* out) {
  for (std::int64_t i = 0; i < k; ++i) {
    float* to = out + i * kCols;
    std::int64_t j = 0;
    for (; j + kCols <= cols; j += kCols, to += kStripB) {
      store(b.load(i, j), to);
      store(b.load(i, j + kLanes), to + kLanes);
    }
    if (j == cols) continue;
    for (std::int64_t r = 0; r < kCols; ++r) to[r] = j + r < cols ? b.one(i, j + r) : 0.0f;
  }
}

#if HWY_TARGET != HWY_SCALAR
/// Vector whose 128-bit block i holds four numbers of row 4 i.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_blocks(D d, const T* rows, std::int64_t stride) {
  constexpr auto kSize = static_cast<std::int64_t>(hn::MaxLanes(D()));
  if constexpr (kSize > 4) {
    const hn::Half<D> half;
    return hn::Combine(d, load_blocks(half, rows + kSize / 2 * stride, stride),
                       load_blocks(half, rows, stride));
  } else if constexpr (sizeof(T) == 4) {
    return hn::LoadU(d, rows);
  } else {
    const hn::Rebind<std::uint16_t, D> narrow;
    const hn::Rebind<std::uint32_t, D> wide;
    const auto half = hn::LoadU(narrow, reinterpret_cast<const std::uint16_t*>(rows));
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(wide, half)));
  }
}

/// out[i * kCols + j] = b[j * stride + i] for kLanes rows j and four i.
template <class T>
HWY_INLINE void transpose_4(const T* b, std::int64_t stride, float* out) {
  const DF d;
  const hn::RepartitionToWide<DF> pairs;
  const VF r0 = load_blocks(d, b, stride), r1 = load_blocks(d, b + stride, stride);
  const VF r2 = load_blocks(d, b + 2 * stride, stride), r3 = load_blocks(d, b + 3 * stride, stride);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
  store(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), out);
  store(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), out + kCols);
  store(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), out + 2 * kCols);
  store(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), out + 3 * kCols);
}
#endif

/// b[cols, k] -> strips [kKBlock, kCols], zeros right of cols.
template <class T>
void pack_b_k_last(const T* b, std::int64_t stride, std::int64_t cols, std::int64_t k, float* out) {
  for (std::int64_t j = 0; j < cols; j += kLanes) {
    float* to = out + j / kCols * kStripB + j % kCols;
    const T* from = b + j * stride;
    std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    if (j + kLanes <= cols) {
      for (; i + 4 <= k; i += 4) transpose_4(from + i, stride, to + i * kCols);
    }
#endif
    for (; i < k; ++i) {
      for (std::int64_t r = 0; r < kLanes; ++r) {
        to[i * kCols + r] = j + r < cols ? static_cast<float>(from[r * stride + i]) : 0.0f;
      }
    }
  }
  // The kernel reads whole strips.
  const std::int64_t filled = (cols + kLanes - 1) / kLanes * kLanes;
  if (filled % kCols == 0) return;
  float* to = out + filled / kCols * kStripB + filled % kCols;
  for (std::int64_t i = 0; i < k; ++i) store(hn::Zero(DF()), to + i * kCols);
}

/// Running sums of a tile in float32, rows `stride` apart: the result itself, or workspace.
struct Sums {
  float* data;
  std::int64_t stride;
  std::int64_t writable_cols;  // from `data` on
  bool accumulate;
};

/// All strips of packed a times one strip of packed b.
template <class KernelFor>
void multiply_strips(const KernelFor& kernel_for, const float* a, const float* b, std::int64_t k,
                     std::int64_t rows, const Sums& sums) {
  for (std::int64_t row = 0; row < rows; row += kRows, a += kStripA) {
    const std::int64_t used = std::min(kRows, rows - row);
    const Multiply kernel = kernel_for(used);
    float* out = sums.data + row * sums.stride;
    if (sums.writable_cols >= kCols) {
      kernel(a, b, k, out, sums.stride, sums.accumulate);
      continue;
    }
    HWY_ALIGN float edge[kRows * kCols];
    kernel(a, b, k, edge, kCols, false);
    for (std::int64_t r = 0; r < used; ++r) {
      for (std::int64_t j = 0; j < sums.writable_cols; ++j) {
        float& to = out[r * sums.stride + j];
        to = sums.accumulate ? to + edge[r * kCols + j] : edge[r * kCols + j];
      }
    }
  }
}

/// The panels of one thread.
struct Workspace {
  float *a, *b, *sums;
};

/// Operands as float32 units, whatever T is.
template <class T>
struct SingleUnits {
  static constexpr std::int64_t kNumbers = 1;
  using KLast = T;

  static Rows<T> rows(const T* data, std::int64_t stride, std::int64_t) { return {data, stride}; }
  template <bool kKLast>
  static Multiply kernel(std::int64_t used) {
    return multiply_for<kKLast>(used);
  }
};

/// bfloat16 operands in pairs. Where k runs along memory they lie in pairs already, and units are
/// moved as if they were floats: k is even then.
struct PairUnits {
  static constexpr std::int64_t kNumbers = 2;
  using KLast = float;

  static RowPairs rows(const bfloat16* data, std::int64_t stride, std::int64_t k) {
    return {data, stride, k};
  }
  template <bool kKLast>
  static Multiply kernel(std::int64_t used) {
    return cpu::bf16_kernel(kKLast, used);
  }
};

/// Numbers [k0, k0 + k) of a tile's dot products: packs a once, then a few strips of b at a time.
template <class Units, class T>
void multiply_block(const GemmArgs& g, const TileRange& t, const Workspace& w, std::int64_t k0,
                    std::int64_t k, const Sums& sums) {
  using KLast = typename Units::KLast;
  const T* a = static_cast<const T*>(g.a);
  const T* b = static_cast<const T*>(g.b);
  const auto k_last = [](const T* at) { return reinterpret_cast<const KLast*>(at); };
  const bool a_k_last = g.form != Form::dw, b_k_last = g.form == Form::y;
  const std::int64_t units = (k + Units::kNumbers - 1) / Units::kNumbers;
  const std::int64_t row_units = g.k / Units::kNumbers;
  if (a_k_last) {
    pack_a_k_last(k_last(a + t.row * g.k + k0), row_units, t.rows, units, w.a);
  } else {
    pack_a_k_first(Units::rows(a + k0 * g.m + t.row, g.m, k), t.rows, units, w.a);
  }
  for (std::int64_t group = 0; group < t.cols; group += cpu::kTileColUnit) {
    const std::int64_t cols = std::min(cpu::kTileColUnit, t.cols - group);
    if (b_k_last) {
      pack_b_k_last(k_last(b + (t.col + group) * g.k + k0), row_units, cols, units, w.b);
    } else {
      pack_b_k_first(Units::rows(b + k0 * g.n + t.col + group, g.n, k), cols, units, w.b);
    }
    for (std::int64_t col = 0; col < cols; col += kCols) {
      const float* strip = w.b + col / kCols * kStripB;
      const Sums to{sums.data + group + col, sums.stride, sums.writable_cols - group - col,
                    sums.accumulate};
      if (a_k_last) {
        multiply_strips(Units::template kernel<true>, w.a, strip, units, t.rows, to);
      } else {
        multiply_strips(Units::template kernel<false>, w.a, strip, units, t.rows, to);
      }
    }
  }
}

template <class Units, class T>
void multiply_tile(const GemmArgs& g, const TileRange& t, const Workspace& w, Sums sums) {
  std::int64_t k0 = 0;
  do {  // once even for k = 0: the result is zero then
    const std::int64_t k = std::min(kKBlock * Units::kNumbers, g.k - k0);
    multiply_block<Units, T>(g, t, w, k0, k, sums);
    sums.accumulate = true;
    k0 += k;
  } while (k0 < g.k);
}

/// The choice depends on the form and K alone, so that the bits do.
template <class T>
void multiply_tile(const GemmArgs& g, const TileRange& t, const Workspace& w, const Sums& sums) {
  if constexpr (sizeof(T) == 2 && kLanes == 16) {
    if (cpu::has_bf16_kernel() && (g.form == Form::dw || g.k % 2 == 0)) {
      return multiply_tile<PairUnits, T>(g, t, w, sums);
    }
  }
  multiply_tile<SingleUnits<T>, T>(g, t, w, sums);
}

/// c = sums, or c += sums, rounded once.
void round_tile(bfloat16* c, std::int64_t c_stride, const TileRange& t, const Sums& sums,
                bool accumulate) {
  for (std::int64_t r = 0; r < t.rows; ++r) {
    bfloat16* to = c + r * c_stride;
    const float* from = sums.data + r * sums.stride;
    for_lanes(t.cols, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
      const VF v = load(from + j);
      store_n(accumulate ? hn::Add(v, load_n(to + j, n)) : v, to + j, n);
    });
  }
}

void tile(const GemmArgs& g, const TileRange& t, float* workspace) {
  const Workspace w{workspace, workspace + cpu::kPanelAFloats,
                    workspace + cpu::kPanelAFloats + cpu::kPanelBFloats};
  const std::int64_t at = t.row * g.n + t.col;
  const bool accumulate = g.write == Write::accumulate;
  const auto multiply_into = [&](const Sums& sums) {
    visit_float(g.dtype, [&]<class T>(T) { multiply_tile<T>(g, t, w, sums); });
  };
  if (g.result_dtype == DType::f32) {
    multiply_into({static_cast<float*>(g.c) + at, g.n, t.cols, accumulate});
    return;
  }
  const std::int64_t padded = (t.cols + kCols - 1) / kCols * kCols;
  const Sums sums{w.sums, padded, padded, false};
  multiply_into(sums);
  round_tile(static_cast<bfloat16*>(g.c) + at, g.n, t, sums, accumulate);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(tile);

void gemm_tile(const GemmArgs& g, const TileRange& t, float* workspace) {
  HWY_DYNAMIC_DISPATCH(tile)(g, t, workspace);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

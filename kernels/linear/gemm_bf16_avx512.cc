#include "kernels/linear/gemm_bf16_avx512.h"

#include "kernels/linear/gemm_tile_cpu.h"

#ifdef __x86_64__
#include <immintrin.h>

#include <array>
#include <utility>

namespace jamba::cpu {

namespace {

constexpr std::int64_t kLanes = 16, kCols = 2 * kLanes;

// Highway 1.0 has no target with these instructions, hence the intrinsics. As kernels/linear/
// gemm_tile_cpu.cc's `multiply`, with a pair of bfloat16 in place of each float32.
template <int kUsed, bool kKLast>
__attribute__((target("avx512f,avx512bf16"))) void multiply(const float* __restrict a,
                                                            const float* __restrict b,
                                                            std::int64_t k, float* __restrict out,
                                                            std::int64_t stride, bool accumulate) {
  __m512 c[kUsed][2];
#pragma GCC unroll 12
  for (int r = 0; r < kUsed; ++r) {
    _mm_prefetch(out + r * stride, _MM_HINT_T0);
    _mm_prefetch(out + r * stride + kCols - 1, _MM_HINT_T0);
    c[r][0] = c[r][1] = _mm512_setzero_ps();
  }
  for (std::int64_t i = 0; i < k; ++i) {
    const __m512bh b0 = (__m512bh)_mm512_load_ps(b + i * kCols);
    const __m512bh b1 = (__m512bh)_mm512_load_ps(b + i * kCols + kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kUsed; ++r) {
      const float pair = kKLast ? a[r * kKBlock + i] : a[i * kBf16KernelRows + r];
      const __m512bh v = (__m512bh)_mm512_set1_ps(pair);
      c[r][0] = _mm512_dpbf16_ps(c[r][0], v, b0);
      c[r][1] = _mm512_dpbf16_ps(c[r][1], v, b1);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kUsed; ++r) {
    float* row = out + r * stride;
    if (accumulate) {
      c[r][0] = _mm512_add_ps(c[r][0], _mm512_loadu_ps(row));
      c[r][1] = _mm512_add_ps(c[r][1], _mm512_loadu_ps(row + kLanes));
    }
    _mm512_storeu_ps(row, c[r][0]);
    _mm512_storeu_ps(row + kLanes, c[r][1]);
  }
}

template <bool kKLast, std::size_t... kIndex>
constexpr std::array<Multiply, sizeof...(kIndex)> kernels(std::index_sequence<kIndex...>) {
  return {multiply<static_cast<int>(kIndex) + 1, kKLast>...};
}
template <bool kKLast>
constexpr auto kKernels = kernels<kKLast>(std::make_index_sequence<kBf16KernelRows>());

}  // namespace

bool has_bf16_kernel() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
  return has;
}

Multiply bf16_kernel(bool a_k_last, std::int64_t used) {
  const auto i = static_cast<std::size_t>(used - 1);
  return a_k_last ? kKernels<true>[i] : kKernels<false>[i];
}

}  // namespace jamba::cpu

#else

namespace jamba::cpu {

bool has_bf16_kernel() { return false; }
Multiply bf16_kernel(bool, std::int64_t) { return nullptr; }

}  // namespace jamba::cpu
#endif

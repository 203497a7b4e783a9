#pragma once
// The inner kernel of bfloat16 products on CPUs with AVX512_BF16 (Zen 4, Cooper Lake and later).

#include <cstdint>

namespace jamba::cpu {

/// out[used, 2 vectors] = (out +) a strip of packed a times one of packed b; k in units of the
/// panels; rows of out `stride` apart.
using Multiply = void (*)(const float* a, const float* b, std::int64_t k, float* out,
                          std::int64_t stride, bool accumulate);

/// Rows of a strip of packed a, in AVX-512 registers.
inline constexpr std::int64_t kBf16KernelRows = 12;

/// Whether this CPU has the instructions.
bool has_bf16_kernel();

/// The kernel for `used` rows, 1 to kBf16KernelRows, of units that are pairs of bfloat16. A pair's
/// two products are added to a float32 sum one after the other; subnormal numbers count as zero.
Multiply bf16_kernel(bool a_k_last, std::int64_t used);

}  // namespace jamba::cpu

#pragma once
// The dialect of our kernels: numbers as they lie in memory and in registers, approximations with
// the error that the contracts allow, dynamic shared memory. The only inline assembly is in
// kernels/core/cuda, each piece beside a twin in C++ that means the same.

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/core/dtype.h"

// JAMBA_DYNAMIC_SHARED(T, name): the launch's dynamic shared memory as a T*, aligned to 16 bytes;
// once in a kernel. The emulation has its own.
#ifdef __CUDACC__
#define JAMBA_DYNAMIC_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char jamba_shared_bytes[]; \
  T* const name = reinterpret_cast<T*>(jamba_shared_bytes)
#endif

namespace jamba::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// Kernels index with 64 bits: tensors have more than 2^31 elements.
using Index = std::int64_t;

__host__ __device__ constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// --- numbers in memory: float, or bfloat16 rounded to nearest even ---

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bfloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float x) {
#ifdef __CUDACC__
  bfloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  return bfloat16(x);
#endif
}

/// N elements that are loaded and stored at once: N * sizeof(T) is 2, 4, 8 or 16 bytes, and the
/// address a multiple of it.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};

/// The memory at p as one Wide, which it must be aligned for. The emulation stops if it is not: on
/// the CPU nothing else would notice.
template <class Wide, class T>
__device__ __forceinline__ Wide* as_wide(T* p) {
#ifdef JAMBA_CUDA_IS_EMULATED
  cuda_emulation::expect_aligned(p, alignof(Wide));
#endif
  return reinterpret_cast<Wide*>(p);
}

template <int N, class T>
__device__ __forceinline__ void load_pack(float (&out)[N], const T* from) {
  const Pack<T, N> pack = *as_wide<const Pack<T, N>>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = to_float(pack.v[i]);
}
template <int N, class T>
__device__ __forceinline__ void store_pack(T* to, const float (&values)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.v[i] = from_float<T>(values[i]);
  *as_wide<Pack<T, N>>(to) = pack;
}

// --- functions ---

inline constexpr float kLog2E = 1.44269504088896340736f;

/// 2^x in one instruction: relative error below 2^-22, results below 2^-126 are 0.
__device__ __forceinline__ float exp2_approx(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = exp2f(x);
  return y < 1.17549435e-38f ? 0.0f : y;
#endif
}
/// e^x; its relative error grows with |x| by 2^-24 |x|.
__device__ __forceinline__ float exp_approx(float x) { return exp2_approx(x * kLog2E); }

/// 1 / x in one instruction and a correction: error about 1 unit of 2^-23.
__device__ __forceinline__ float reciprocal(float x) { return __frcp_rn(x); }

/// e^-|x| <= 1 in both branches: no overflow for any x.
__device__ __forceinline__ float sigmoid(float x) {
  const float e = exp_approx(-fabsf(x));
  const float r = reciprocal(1.0f + e);
  return x < 0.0f ? e * r : r;
}
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
/// d silu(x) / dx, given s = sigmoid(x).
__device__ __forceinline__ float silu_derivative(float x, float s) {
  return s * fmaf(x, 1.0f - s, 1.0f);
}

/// log(1 + e^x), accurate in relative terms for any x, and its derivative sigmoid(x).
struct Softplus {
  float value, derivative;
};
__device__ __forceinline__ Softplus softplus(float x) {
  const float e = exp_approx(-fabsf(x));
  // log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3: a polynomial in s^2, off by 5e-9.
  const float s = __fdividef(e, 2.0f + e);
  const float s2 = s * s;
  float p = 2.8011987208e-01f;
  p = fmaf(p, s2, 2.8001805188e-01f);
  p = fmaf(p, s2, 4.0021527245e-01f);
  p = fmaf(p, s2, 6.6666416286e-01f);
  p = fmaf(p, s2, 2.0f);
  const float r = reciprocal(1.0f + e);
  return {fmaf(p, s, fmaxf(x, 0.0f)), x < 0.0f ? e * r : r};
}

}  // namespace jamba::cuda

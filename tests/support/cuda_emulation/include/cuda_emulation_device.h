#pragma once
// What kernels see, as C++ for clang. Each CUDA thread is a fiber; what needs others to come gives
// the processor to another one.

#include <cmath>
#include <cstring>
#include <type_traits>

#include "tests/support/cuda_emulation/include/cuda_emulation_device_api.h"

// Static shared memory is one section of the program, filled with NaN before each block. Keep it
// small: every block pays for that of all kernels. Large arrays belong into dynamic shared memory.
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static __attribute__((section("cuda_emulation_shared")))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define JAMBA_DYNAMIC_SHARED(T, name) \
  T* const name = static_cast<T*>(cuda_emulation::dynamic_shared())

namespace cuda_emulation {

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace cuda_emulation

#define CUDA_EMULATION_SITE                                                                    \
  cuda_emulation::Site site = cuda_emulation::Site {                                           \
    __builtin_FILE(), static_cast<int>(__builtin_LINE()), static_cast<int>(__builtin_COLUMN()) \
  }

inline void __syncthreads(CUDA_EMULATION_SITE) { cuda_emulation::sync_threads(site); }
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_EMULATION_SITE) {
  cuda_emulation::meet(cuda_emulation::WarpOp::sync, mask, 0, 0, 32, site);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, CUDA_EMULATION_SITE) {
  return cuda_emulation::from_bits<T>(cuda_emulation::meet(
      cuda_emulation::WarpOp::shuffle, mask, cuda_emulation::to_bits(value), lane, width, site));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32, CUDA_EMULATION_SITE) {
  return cuda_emulation::from_bits<T>(cuda_emulation::meet(cuda_emulation::WarpOp::shuffle_up, mask,
                                                           cuda_emulation::to_bits(value),
                                                           static_cast<int>(step), width, site));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32, CUDA_EMULATION_SITE) {
  return cuda_emulation::from_bits<T>(cuda_emulation::meet(cuda_emulation::WarpOp::shuffle_down,
                                                           mask, cuda_emulation::to_bits(value),
                                                           static_cast<int>(step), width, site));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_EMULATION_SITE) {
  return cuda_emulation::from_bits<T>(cuda_emulation::meet(cuda_emulation::WarpOp::shuffle_xor,
                                                           mask, cuda_emulation::to_bits(value),
                                                           lanes, width, site));
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_EMULATION_SITE) {
  return static_cast<unsigned>(cuda_emulation::meet(cuda_emulation::WarpOp::ballot, mask,
                                                    predicate != 0 ? 1 : 0, 0, 32, site));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_EMULATION_SITE) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_EMULATION_SITE) {
  return __ballot_sync(mask, predicate == 0, site) == 0;
}

// Integers alone: the order of threads would decide the last digits of a float.
#define CUDA_EMULATION_ATOMIC(NAME, OP)                                                         \
  inline int NAME(int* at, int value) {                                                         \
    return static_cast<int>(cuda_emulation::atomic32(cuda_emulation::AtomicOp::OP, at,          \
                                                     static_cast<std::uint32_t>(value), true)); \
  }                                                                                             \
  inline unsigned NAME(unsigned* at, unsigned value) {                                          \
    return cuda_emulation::atomic32(cuda_emulation::AtomicOp::OP, at, value, false);            \
  }                                                                                             \
  inline unsigned long long NAME(unsigned long long* at, unsigned long long value) {            \
    return cuda_emulation::atomic64(cuda_emulation::AtomicOp::OP, at, value);                   \
  }                                                                                             \
  float NAME(float*, float) = delete;                                                           \
  double NAME(double*, double) = delete;
CUDA_EMULATION_ATOMIC(atomicAdd, add)
CUDA_EMULATION_ATOMIC(atomicMax, max)
CUDA_EMULATION_ATOMIC(atomicMin, min)
CUDA_EMULATION_ATOMIC(atomicExch, exchange)
CUDA_EMULATION_ATOMIC(atomicOr, bit_or)

template <class T>
inline T __ldg(const T* p) {
  return *p;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

inline unsigned __float_as_uint(float x) {
  return cuda_emulation::from_bits<unsigned>(cuda_emulation::to_bits(x));
}
inline int __float_as_int(float x) {
  return cuda_emulation::from_bits<int>(cuda_emulation::to_bits(x));
}
inline float __uint_as_float(unsigned x) { return cuda_emulation::from_bits<float>(x); }
inline float __int_as_float(int x) {
  return cuda_emulation::from_bits<float>(cuda_emulation::to_bits(x));
}
inline long long __double_as_longlong(double x) {
  return cuda_emulation::from_bits<long long>(cuda_emulation::to_bits(x));
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline double cospi(double x) { return std::cos(3.14159265358979323846 * std::fmod(x, 2.0)); }
inline double sinpi(double x) { return std::sin(3.14159265358979323846 * std::fmod(x, 2.0)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}

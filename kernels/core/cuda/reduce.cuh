#pragma once
// Sums, maxima and minima over the lanes of a warp and the warps of a block, in one fixed order.

#include "kernels/core/cuda/device.cuh"

namespace jamba::cuda {

/// The sum of kLanes neighbouring lanes, a power of two, on each of them. Butterflies: every lane
/// adds the same pairs.
template <int kLanes = kWarp, class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
template <int kLanes = kWarp>
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2)
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}
__device__ __forceinline__ int warp_min(int x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const int other = __shfl_xor_sync(kAllLanes, x, step);
    x = other < x ? other : x;
  }
  return x;
}

/// What a block reduces through.
template <int kThreads>
struct BlockReduction {
  static_assert(kThreads % kWarp == 0 && kThreads <= 1024);
  static constexpr int kWarps = kThreads / kWarp;
  float parts[kWarps];
};

/// The sum over the block's threads, on each of them. All threads call it; `shared` may be used
/// again after the next __syncthreads().
template <int kThreads>
__device__ __forceinline__ float block_sum(float x, BlockReduction<kThreads>& shared) {
  x = warp_sum(x);
  if constexpr (kThreads == kWarp) return x;
  if (threadIdx.x % kWarp == 0) shared.parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < BlockReduction<kThreads>::kWarps; ++w) sum += shared.parts[w];
  return sum;
}
template <int kThreads>
__device__ __forceinline__ float block_max(float x, BlockReduction<kThreads>& shared) {
  x = warp_max(x);
  if constexpr (kThreads == kWarp) return x;
  if (threadIdx.x % kWarp == 0) shared.parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  float most = shared.parts[0];
#pragma unroll
  for (int w = 1; w < BlockReduction<kThreads>::kWarps; ++w) most = fmaxf(most, shared.parts[w]);
  return most;
}

}  // namespace jamba::cuda

#pragma once
// Pieces of stable counting sorts: how often each key stands in each tile of keys, where each
// (key, tile) begins in sorted order, and the place of a key among the equal ones of its tile.
// Integers alone, so the order of threads and blocks does not matter.

#include "kernels/core/cuda/launch.cuh"

namespace jamba::cuda {

/// Keys of one tile, which one block of as many threads handles.
inline constexpr int kSortTile = 256;

/// Occurrences [num_keys, tiles] from `key_of(i)` in [0, num_keys), i < n.
/// Dynamic shared memory: num_keys ints.
template <class KeyOf>
__global__ void __launch_bounds__(kSortTile)
    count_keys_kernel(int* occurrences, KeyOf key_of, Index n, int num_keys) {
  JAMBA_DYNAMIC_SHARED(int, count);
  for (int key = threadIdx.x; key < num_keys; key += kSortTile) count[key] = 0;
  __syncthreads();
  const Index i = static_cast<Index>(blockIdx.x) * kSortTile + threadIdx.x;
  if (i < n) atomicAdd(&count[key_of(i)], 1);
  __syncthreads();
  for (int key = threadIdx.x; key < num_keys; key += kSortTile)
    occurrences[static_cast<Index>(key) * gridDim.x + blockIdx.x] = count[key];
}

inline constexpr int kScanThreads = 1024;

/// Replaces n numbers by the sums of those before them. One block.
static __global__ void __launch_bounds__(kScanThreads) exclusive_sum_kernel(int* data, Index n) {
  constexpr int kWarps = kScanThreads / kWarp;
  __shared__ int warp_sums[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int before = 0;  // the sum of earlier rounds
  for (Index base = 0; base < n; base += kScanThreads) {
    const Index i = base + threadIdx.x;
    const int value = i < n ? data[i] : 0;
    int sum = value;  // of this lane and those below
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int below = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += below;
    }
    if (lane == kWarp - 1) warp_sums[warp] = sum;
    __syncthreads();
    int earlier_warps = 0, all_warps = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) earlier_warps += warp_sums[w];
      all_warps += warp_sums[w];
    }
    if (i < n) data[i] = before + earlier_warps + sum - value;
    before += all_warps;
    __syncthreads();  // warp_sums is written again
  }
}

/// Keys equal to this thread's that stand before it in the tile. All threads of the block call it,
/// those without a key with -1.
__device__ __forceinline__ int rank_in_tile(int key, int (&keys)[kSortTile]) {
  keys[threadIdx.x] = key;
  __syncthreads();
  int rank = 0;
  for (int i = 0; i < static_cast<int>(threadIdx.x); ++i) rank += keys[i] == key ? 1 : 0;
  return rank;
}

}  // namespace jamba::cuda

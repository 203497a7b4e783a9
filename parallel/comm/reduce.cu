// Bytes bound.

#include "kernels/core/cuda/launch.cuh"
#include "parallel/comm/reduce_cuda.h"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kLevels = 10;  // below 2^10 ranks

/// A binary counter: level l holds the sum of 2^l neighbours while bit l of the number of parts so
/// far is set.
template <class T>
__global__ void __launch_bounds__(kThreads)
    reduce_kernel(T* out, const T* parts, const T* own, int rank, int ranks, Index n) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  float level[kLevels] = {};
  for (int r = 0; r < ranks; ++r) {
    float sum = to_float(r == rank ? own[i] : parts[r * n + i]);
    bool placed = false;
#pragma unroll
    for (int l = 0; l < kLevels; ++l) {
      if (placed) continue;
      if ((r >> l & 1) != 0) {
        sum = level[l] + sum;
      } else {
        level[l] = sum;
        placed = true;
      }
    }
  }
  float total = 0.0f;
  bool some = false;
#pragma unroll
  for (int l = 0; l < kLevels; ++l) {
    if ((ranks >> l & 1) == 0) continue;
    total = some ? level[l] + total : level[l];
    some = true;
  }
  out[i] = from_float<T>(total);
}

}  // namespace

void reduce_parts(Stream& stream, DType dtype, void* out, const void* parts, const void* own,
                  int rank, int ranks, std::int64_t n) {
  JAMBA_CHECK(ranks < 1 << kLevels, "too many ranks for the sum on a device");
  visit_float(dtype, [&]<class T>(T) {
    launch<kThreads>(stream, reduce_kernel<T>, {ceil_div(n, kThreads)}, 0, static_cast<T*>(out),
                     static_cast<const T*>(parts), static_cast<const T*>(own), rank, ranks, n);
  });
}

}  // namespace jamba::cuda

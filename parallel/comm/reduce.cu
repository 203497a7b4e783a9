// Bytes bound.

#include "kernels/core/cuda/launch.cuh"
#include "parallel/comm/reduce_cuda.h"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kLevels = 10;  // below 2^10 ranks

/// A binary counter: level l holds the sum of 2^l neighbours while bit l of the number of parts so
/// far is set. N: elements of a thread.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    reduce_kernel(T* out, const T* parts, const T* own, int rank, int ranks, Index n) {
  const Index i = (static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= n) return;
  float level[kLevels][N] = {};
  for (int r = 0; r < ranks; ++r) {
    float sum[N];
    load_pack(sum, r == rank ? own + i : parts + r * n + i);
    bool placed = false;
#pragma unroll
    for (int l = 0; l < kLevels; ++l) {
      if (placed) continue;
      placed = (r >> l & 1) == 0;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sum[j] = placed ? sum[j] : level[l][j] + sum[j];
        level[l][j] = placed ? sum[j] : level[l][j];
      }
    }
  }
  float total[N] = {};
  bool some = false;
#pragma unroll
  for (int l = 0; l < kLevels; ++l) {
    if ((ranks >> l & 1) == 0) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) total[j] = some ? level[l][j] + total[j] : level[l][j];
    some = true;
  }
  store_pack(out + i, total);
}

}  // namespace

void reduce_parts(Stream& stream, DType dtype, void* out, const void* parts, const void* own,
                  int rank, int ranks, std::int64_t n) {
  JAMBA_CHECK(ranks < 1 << kLevels, "too many ranks for the sum on a device");
  visit_float(dtype, [&]<class T>(T) {
    T* const to = static_cast<T*>(out);
    const T* const from = static_cast<const T*>(parts);
    const T* const mine = static_cast<const T*>(own);
    visit_pack<4>(
        n,
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, reduce_kernel<T, N>, {ceil_div(n, kThreads * N)}, 0, to, from,
                           mine, rank, ranks, n);
        },
        to, from, mine);
  });
}

}  // namespace jamba::cuda

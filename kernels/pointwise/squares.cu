// Bytes bound: 4 bytes an element. A warp sums blocks of kSquaresBlock elements in double; the sums
// meet in integers (ExactSum), so their order does not matter.

#include "kernels/core/cuda/launch.cuh"
#include "kernels/core/cuda/reduce.cuh"
#include "kernels/pointwise/pointwise.h"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostBlocks = 1024;
constexpr int kWords = static_cast<int>(ExactSum::kNumWords);

/// ExactSum::add for a term that is not negative. The words wrap as int64 does.
__device__ __forceinline__ void add_exactly(unsigned long long* words, double term) {
  constexpr int kFractionBits = 52, kExponentMask = 0x7ff;
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(term));
  const int exponent = static_cast<int>(bits >> kFractionBits) & kExponentMask;
  unsigned long long integer = bits & ((1ull << kFractionBits) - 1);
  if (exponent == kExponentMask) {  // infinity, or NaN, which counts as both
    atomicAdd(&words[kWords - 2], 1ull);
    if (integer != 0) atomicAdd(&words[kWords - 1], 1ull);
    return;
  }
  if (exponent != 0) integer |= 1ull << kFractionBits;
  const int place = exponent == 0 ? 0 : exponent - 1, shift = place % 32;
  unsigned long long* const word = words + place / 32;
  const unsigned long long low = (integer & 0xffffffffull) << shift, high = (integer >> 32)
                                                                            << shift;
  const unsigned long long middle = (low >> 32) + (high & 0xffffffffull);
  if ((low & 0xffffffffull) != 0) atomicAdd(&word[0], low & 0xffffffffull);
  if ((middle & 0xffffffffull) != 0) atomicAdd(&word[1], middle & 0xffffffffull);
  const unsigned long long top = (high >> 32) + (middle >> 32);
  if (top != 0) atomicAdd(&word[2], top);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_squares_kernel(unsigned long long* words, const T* x, Index n) {
  __shared__ unsigned long long mine[kWords];
  for (int i = threadIdx.x; i < kWords; i += kThreads) mine[i] = 0;
  __syncthreads();
  const int lane = threadIdx.x % kWarp;
  const Index first =
      (static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / kWarp) * kSquaresBlock;
  for (Index block = first; block < n;
       block += static_cast<Index>(gridDim.x) * kWarps * kSquaresBlock) {
    double sum = 0.0;
#pragma unroll
    for (int i = 0; i < kSquaresBlock; i += kWarp) {
      const Index at = block + i + lane;
      const double v = at < n ? static_cast<double>(to_float(x[at])) : 0.0;
      sum = fma(v, v, sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) add_exactly(mine, sum);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kWords; i += kThreads) {
    if (mine[i] != 0) atomicAdd(&words[i], mine[i]);
  }
}

}  // namespace

void add_squares(Stream& stream, Arena&, Tensor words, Tensor x) {
  const std::int64_t blocks = ceil_div(x.numel(), kWarps * kSquaresBlock);
  visit_float(x.dtype(), [&]<class T>(T) {
    launch<kThreads>(stream, add_squares_kernel<T>, {blocks < kMostBlocks ? blocks : kMostBlocks},
                     0, reinterpret_cast<unsigned long long*>(words.ptr<std::int64_t>()),
                     x.ptr<T>(), x.numel());
  });
}

}  // namespace jamba::cuda

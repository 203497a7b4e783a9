// Bytes bound: each kernel reads and writes every element once, 16 bytes a thread.

#include "kernels/pointwise/pointwise.h"

#include "kernels/core/backend.h"
#include "kernels/core/cuda/launch.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;

enum class Update { cast, add, scale, add_scaled };

template <Update kUpdate>
__device__ __forceinline__ float updated(float y, float x, float factor) {
  if constexpr (kUpdate == Update::cast) return x;
  if constexpr (kUpdate == Update::add) return y + x;
  if constexpr (kUpdate == Update::scale) return x * factor;
  return fmaf(factor, x, y);
}

/// y = updated(y, x); y may be x.
template <Update kUpdate, class Y, class X, int N>
__global__ void __launch_bounds__(kThreads) update_kernel(Y* y, const X* x, Index n, float factor) {
  constexpr bool kReadsY = kUpdate == Update::add || kUpdate == Update::add_scaled;
  const Index i = (static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i + N <= n) {
    float out[N], in[N];
    if constexpr (kReadsY) load_pack(out, y + i);
    load_pack(in, x + i);
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = updated<kUpdate>(kReadsY ? out[j] : 0.0f, in[j], factor);
    store_pack(y + i, out);
    return;
  }
  for (Index j = i; j < n; ++j)
    y[j] = from_float<Y>(updated<kUpdate>(kReadsY ? to_float(y[j]) : 0.0f, to_float(x[j]), factor));
}

template <Update kUpdate>
void update(Stream& stream, Tensor y, Tensor x, float factor) {
  visit_float(y.dtype(), [&]<class Y>(Y) {
    visit_float(x.dtype(), [&]<class X>(X) {
      constexpr int kPack = sizeof(X) == 2 && sizeof(Y) == 2 ? 8 : 4;
      visit_pack<kPack>(
          0,
          [&]<int N>(std::integral_constant<int, N>) {
            launch<kThreads>(stream, update_kernel<kUpdate, Y, X, N>,
                             {ceil_div(ceil_div(y.numel(), N), kThreads)}, 0, y.ptr<Y>(),
                             x.ptr<X>(), y.numel(), factor);
          },
          y.ptr<Y>(), x.ptr<X>());
    });
  });
}

}  // namespace

void zero(Stream& stream, Tensor x) { fill_bytes(stream, x.raw(), 0, x.bytes()); }
void cast(Stream& stream, Tensor y, Tensor x) { update<Update::cast>(stream, y, x, 1.0f); }
void add(Stream& stream, Tensor y, Tensor x) { update<Update::add>(stream, y, x, 1.0f); }
void scale(Stream& stream, Tensor x, float factor) { update<Update::scale>(stream, x, x, factor); }
void add_scaled(Stream& stream, Tensor y, Tensor x, float factor) {
  update<Update::add_scaled>(stream, y, x, factor);
}

}  // namespace jamba::cuda

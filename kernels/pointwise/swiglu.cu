// Bytes bound: a block a row, every element is read and written once.

#include "kernels/pointwise/swiglu.h"

#include "kernels/core/cuda/launch.cuh"
#include "kernels/core/cuda/reduce.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(T* y, const T* gate_up, const float* row_scale, Index ffn) {
  const Index row = blockIdx.x;
  const T* const gate = gate_up + row * 2 * ffn;
  const float factor = row_scale != nullptr ? row_scale[row] : 1.0f;
  for (Index i = threadIdx.x * N; i < ffn; i += kThreads * N) {
    float g[N], u[N];
    load_pack(g, gate + i);
    load_pack(u, gate + ffn + i);
#pragma unroll
    for (int j = 0; j < N; ++j) g[j] = factor * (silu(g[j]) * u[j]);
    store_pack(y + row * ffn + i, g);
  }
}

/// dgate_up may be gate_up, and y may be dy: a thread reads its elements before it writes them.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(T* dgate_up, T* y, float* drow_scale, const T* dy, const T* gate_up,
                    const float* row_scale, Index ffn) {
  const Index row = blockIdx.x;
  const T* const gate = gate_up + row * 2 * ffn;
  T* const dgate = dgate_up + row * 2 * ffn;
  const float factor = row_scale != nullptr ? row_scale[row] : 1.0f;
  float dscale = 0.0f;
  for (Index i = threadIdx.x * N; i < ffn; i += kThreads * N) {
    float g[N], u[N], d[N];
    load_pack(g, gate + i);
    load_pack(u, gate + ffn + i);
    load_pack(d, dy + row * ffn + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float s = sigmoid(g[j]), silu_g = g[j] * s, product = silu_g * u[j];
      const float scaled = factor * d[j];
      dscale = fmaf(d[j], product, dscale);
      g[j] = scaled * u[j] * silu_derivative(g[j], s);
      u[j] = scaled * silu_g;
      d[j] = factor * product;
    }
    store_pack(dgate + i, g);
    store_pack(dgate + ffn + i, u);
    store_pack(y + row * ffn + i, d);
  }
  if (drow_scale == nullptr) return;
  __shared__ BlockReduction<kThreads> shared;
  dscale = block_sum(dscale, shared);
  if (threadIdx.x == 0) drow_scale[row] = dscale;
}

}  // namespace

void swiglu_forward(Stream& stream, Tensor y, Tensor gate_up, Tensor row_scale) {
  visit_float(y.dtype(), [&]<class T>(T) {
    visit_pack<16 / sizeof(T)>(
        y.cols(),
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, forward_kernel<T, N>, {y.rows()}, 0, y.ptr<T>(),
                           gate_up.ptr<T>(), row_scale.ptr<float>(), y.cols());
        },
        y.ptr<T>(), gate_up.ptr<T>());
  });
}

void swiglu_backward(Stream& stream, Tensor dgate_up, Tensor y, Tensor drow_scale, Tensor dy,
                     Tensor gate_up, Tensor row_scale) {
  visit_float(dy.dtype(), [&]<class T>(T) {
    visit_pack<16 / sizeof(T)>(
        dy.cols(),
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, backward_kernel<T, N>, {dy.rows()}, 0, dgate_up.ptr<T>(),
                           y.ptr<T>(), drow_scale.ptr<float>(), dy.ptr<T>(), gate_up.ptr<T>(),
                           row_scale.ptr<float>(), dy.cols());
        },
        dgate_up.ptr<T>(), y.ptr<T>(), dy.ptr<T>(), gate_up.ptr<T>());
  });
}

}  // namespace jamba::cuda

#include "kernels/norm/rms_norm.h"

#include "kernels/core/cuda/add_parts.cuh"
#include "kernels/core/cuda/reduce.cuh"
#include "kernels/core/memory.h"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;

/// One row a block: sum and square, then scale what was just written.
template <class T, class W, int N>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(T* y, T* sum, float* rstd, const T* x, const T* residual, const W* w,
                   Index model, float eps) {
  const Index row = static_cast<Index>(blockIdx.x) * model;
  float squares = 0.0f;
  for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
    float v[N];
    load_pack(v, x + row + i);
    if (residual != nullptr) {
      float r[N];
      load_pack(r, residual + row + i);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] = to_float(from_float<T>(v[j] + r[j]));
      store_pack(sum + row + i, v);
    }
#pragma unroll
    for (int j = 0; j < N; ++j) squares = fmaf(v[j], v[j], squares);
  }
  __shared__ BlockReduction<kThreads> shared;
  const float mean = block_sum(squares, shared) / static_cast<float>(model);
  const float r = 1.0f / sqrtf(mean + eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = r;
  const T* const read = residual != nullptr ? sum : x;
  for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
    float v[N], scale[N];
    load_pack(v, read + row + i);
    load_pack(scale, w + i);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = v[j] * r * scale[j];
    store_pack(y + row + i, v);
  }
}

/// Rows [blockIdx.x * rows_a_block, ...): dx of each, and the block's part of dw in shared memory.
template <class T, class W, int N>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(T* dx, float* dw_parts, const T* dy, const T* d_residual, const T* x,
                    const float* rstd, const W* w, Index tokens, Index model, Index rows_a_block) {
  JAMBA_DYNAMIC_SHARED(float, dw);  // [model]; each thread only touches its own columns
  __shared__ BlockReduction<kThreads> shared;
  for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
#pragma unroll
    for (int j = 0; j < N; ++j) dw[i + j] = 0.0f;
  }
  const Index begin = static_cast<Index>(blockIdx.x) * rows_a_block;
  const Index end = begin + rows_a_block < tokens ? begin + rows_a_block : tokens;
  for (Index t = begin; t < end; ++t) {
    const Index row = t * model;
    const float r = rstd[t];
    float dot = 0.0f;
    for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
      float g[N], v[N], scale[N];
      load_pack(g, dy + row + i);
      load_pack(v, x + row + i);
      load_pack(scale, w + i);
#pragma unroll
      for (int j = 0; j < N; ++j) dot = fmaf(g[j] * scale[j], v[j], dot);
    }
    const float mean = block_sum(dot, shared) / static_cast<float>(model);
    const float pull = mean * r * r;
    for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
      float g[N], v[N], scale[N], out[N];
      load_pack(g, dy + row + i);
      load_pack(v, x + row + i);
      load_pack(scale, w + i);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        dw[i + j] = fmaf(g[j] * v[j], r, dw[i + j]);
        out[j] = r * fmaf(-v[j], pull, g[j] * scale[j]);
      }
      if (d_residual != nullptr) {
        float past[N];
        load_pack(past, d_residual + row + i);
#pragma unroll
        for (int j = 0; j < N; ++j) out[j] += past[j];
      }
      store_pack(dx + row + i, out);
    }
    __syncthreads();  // `shared` is used again
  }
  for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
    float part[N];
#pragma unroll
    for (int j = 0; j < N; ++j) part[j] = dw[i + j];
#pragma unroll
    for (int j = 0; j < N; ++j) dw_parts[blockIdx.x * model + i + j] = part[j];
  }
}

}  // namespace

void rms_norm_forward(Stream& stream, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor residual,
                      Tensor w, float eps) {
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_float(w.dtype(), [&]<class W>(W) {
      visit_pack<4>(
          x.cols(),
          [&]<int N>(std::integral_constant<int, N>) {
            launch<kThreads>(stream, forward_kernel<T, W, N>, {x.rows()}, 0, y.ptr<T>(),
                             sum.ptr<T>(), rstd.ptr<float>(), x.ptr<T>(), residual.ptr<T>(),
                             w.ptr<W>(), x.cols(), eps);
          },
          y.ptr<T>(), sum.ptr<T>(), x.ptr<T>(), residual.ptr<T>(), w.ptr<W>());
    });
  });
}

void rms_norm_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw, Tensor dy,
                       Tensor d_residual, Tensor x, Tensor rstd, Tensor w) {
  const std::int64_t tokens = x.rows(), model = x.cols();
  // Enough blocks to fill the device, few enough parts to add up.
  constexpr std::int64_t kMostParts = 512;
  const std::int64_t rows_a_block = ceil_div(tokens, kMostParts);
  const std::int64_t num_parts = rows_a_block == 0 ? 0 : ceil_div(tokens, rows_a_block);
  const ArenaScope scope(scratch);
  const Tensor parts = scratch.allocate(DType::f32, {num_parts, model});
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_float(w.dtype(), [&]<class W>(W) {
      visit_pack<4>(
          model,
          [&]<int N>(std::integral_constant<int, N>) {
            launch<kThreads>(stream, backward_kernel<T, W, N>, {num_parts},
                             static_cast<std::size_t>(model) * sizeof(float), dx.ptr<T>(),
                             parts.ptr<float>(), dy.ptr<T>(), d_residual.ptr<T>(), x.ptr<T>(),
                             rstd.ptr<float>(), w.ptr<W>(), tokens, model, rows_a_block);
          },
          dx.ptr<T>(), dy.ptr<T>(), d_residual.ptr<T>(), x.ptr<T>(), w.ptr<W>());
    });
  });
  add_parts(stream, dw.ptr<float>(), parts.ptr<float>(), num_parts, model);
}

}  // namespace jamba::cuda

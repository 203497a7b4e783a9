// Bytes bound: a warp a token reads and writes its numbers once.

#include "kernels/mamba/inner_norm.h"

#include "kernels/core/cuda/add_parts.cuh"
#include "kernels/core/cuda/reduce.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
/// Blocks of the backward: enough to fill a device, few enough parts to add up.
constexpr Index kMostBlocks = 512;

/// One of the three vectors of a token: where it begins in x, its width, its weights.
template <class W>
struct Section {
  Index begin, width;
  const W* w;
};

template <class T, class W>
__device__ __forceinline__ void norm_section(T* y, float* rstd, const float* x, const Section<W>& s,
                                             float eps) {
  const int lane = threadIdx.x % kWarp;
  float r = 1.0f;
  if (s.w != nullptr) {
    float squares = 0.0f;
    for (Index i = lane; i < s.width; i += kWarp) squares = fmaf(x[i], x[i], squares);
    r = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(s.width) + eps);
    if (lane == 0) *rstd = r;
  }
  for (Index i = lane; i < s.width; i += kWarp)
    y[i] = from_float<T>(s.w != nullptr ? x[i] * r * to_float(s.w[i]) : x[i]);
}

template <class T, class W>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(T* dt, float* b, float* c, float* rstd, const float* x, Section<W> of_dt,
                   Section<W> of_b, Section<W> of_c, Index tokens, float eps) {
  const Index t = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (t >= tokens) return;
  const float* const row = x + t * (of_c.begin + of_c.width);
  float* const r = rstd + t * 3;
  norm_section(dt + t * of_dt.width, r, row, of_dt, eps);
  norm_section(b + t * of_b.width, r + 1, row + of_b.begin, of_b, eps);
  norm_section(c + t * of_c.width, r + 2, row + of_c.begin, of_c, eps);
}

/// dx = rstd * (dy w - x * rstd^2 * mean(dy w x));  dw += dy * x * rstd.
template <class T, class W>
__device__ __forceinline__ void section_backward(float* dx, float* dw, const T* dy, const float* x,
                                                 float rstd, const Section<W>& s) {
  const int lane = threadIdx.x % kWarp;
  float dot = 0.0f;
  for (Index i = lane; i < s.width; i += kWarp)
    dot = fmaf(to_float(dy[i]) * to_float(s.w[i]), x[i], dot);
  const float pull = rstd * rstd * warp_sum(dot) / static_cast<float>(s.width);
  for (Index i = lane; i < s.width; i += kWarp) {
    const float g = to_float(dy[i]);
    dw[i] = fmaf(g * x[i], rstd, dw[i]);
    dx[i] = rstd * fmaf(-pull, x[i], g * to_float(s.w[i]));
  }
}

/// Blocks take tokens [blockIdx.x * tokens_a_block, ...); each warp every kWarps-th of them.
/// Dynamic shared memory: a row of weights' gradients a warp. A lane only touches its own columns.
template <class T, class W>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(float* dx, float* parts, const T* d_dt, const float* d_b, const float* d_c,
                    const float* x, const float* rstd, Section<W> of_dt, Section<W> of_b,
                    Section<W> of_c, Index tokens, Index tokens_a_block) {
  JAMBA_DYNAMIC_SHARED(float, shared);
  const Index width = of_c.begin + of_c.width;
  const int warp = threadIdx.x / kWarp;
  for (Index i = threadIdx.x; i < kWarps * width; i += kThreads) shared[i] = 0.0f;
  __syncthreads();
  float* const dw = shared + warp * width;
  const Index begin = static_cast<Index>(blockIdx.x) * tokens_a_block;
  const Index end = begin + tokens_a_block < tokens ? begin + tokens_a_block : tokens;
  for (Index t = begin + warp; t < end; t += kWarps) {
    const float *row = x + t * width, *r = rstd + t * 3;
    float* const to = dx + t * width;
    section_backward(to, dw, d_dt + t * of_dt.width, row, r[0], of_dt);
    section_backward(to + of_b.begin, dw + of_b.begin, d_b + t * of_b.width, row + of_b.begin, r[1],
                     of_b);
    section_backward(to + of_c.begin, dw + of_c.begin, d_c + t * of_c.width, row + of_c.begin, r[2],
                     of_c);
  }
  __syncthreads();
  for (Index i = threadIdx.x; i < width; i += kThreads) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[w * width + i];
    parts[static_cast<Index>(blockIdx.x) * width + i] = sum;
  }
}

/// Without a norm the gradient is a plain concatenation.
template <class T>
__global__ void __launch_bounds__(kThreads)
    join_kernel(float* dx, const T* d_dt, const float* d_b, const float* d_c, Index width,
                Index state, Index tokens) {
  const Index t = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (t >= tokens) return;
  const int lane = threadIdx.x % kWarp;
  float* const row = dx + t * (width + 2 * state);
  for (Index i = lane; i < width; i += kWarp) row[i] = to_float(d_dt[t * width + i]);
  for (Index i = lane; i < state; i += kWarp) {
    row[width + i] = d_b[t * state + i];
    row[width + state + i] = d_c[t * state + i];
  }
}

}  // namespace

void inner_norm_forward(Stream& stream, Tensor dt, Tensor b, Tensor c, Tensor rstd, Tensor x,
                        Tensor w_dt, Tensor w_b, Tensor w_c, float eps) {
  const std::int64_t width = dt.dim(1), state = b.dim(1), tokens = x.dim(0);
  visit_float(dt.dtype(), [&]<class T>(T) {
    visit_float(w_dt.present() ? w_dt.dtype() : DType::f32, [&]<class W>(W) {
      launch<kThreads>(stream, forward_kernel<T, W>, {ceil_div(tokens, kWarps)}, 0, dt.ptr<T>(),
                       b.ptr<float>(), c.ptr<float>(), rstd.ptr<float>(), x.ptr<float>(),
                       Section<W>{0, width, w_dt.ptr<W>()}, Section<W>{width, state, w_b.ptr<W>()},
                       Section<W>{width + state, state, w_c.ptr<W>()}, tokens, eps);
    });
  });
}

void inner_norm_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw_dt, Tensor dw_b,
                         Tensor dw_c, Tensor d_dt, Tensor d_b, Tensor d_c, Tensor x, Tensor rstd,
                         Tensor w_dt, Tensor w_b, Tensor w_c) {
  const std::int64_t width = d_dt.dim(1), state = d_b.dim(1), tokens = x.dim(0);
  const std::int64_t all = width + 2 * state;
  if (w_dt.absent()) {
    visit_float(d_dt.dtype(), [&]<class T>(T) {
      launch<kThreads>(stream, join_kernel<T>, {ceil_div(tokens, kWarps)}, 0, dx.ptr<float>(),
                       d_dt.ptr<T>(), d_b.ptr<float>(), d_c.ptr<float>(), width, state, tokens);
    });
    return;
  }
  if (tokens == 0) return;
  const std::int64_t tokens_a_block = ceil_div(ceil_div(tokens, kMostBlocks), kWarps) * kWarps;
  const std::int64_t blocks = ceil_div(tokens, tokens_a_block);
  const ArenaScope scope(scratch);
  float* const parts = scratch.allocate(DType::f32, {blocks, all}).ptr<float>();
  visit_float(d_dt.dtype(), [&]<class T>(T) {
    visit_float(w_dt.dtype(), [&]<class W>(W) {
      launch<kThreads>(stream, backward_kernel<T, W>, {blocks},
                       static_cast<std::size_t>(kWarps * all) * sizeof(float), dx.ptr<float>(),
                       parts, d_dt.ptr<T>(), d_b.ptr<float>(), d_c.ptr<float>(), x.ptr<float>(),
                       rstd.ptr<float>(), Section<W>{0, width, w_dt.ptr<W>()},
                       Section<W>{width, state, w_b.ptr<W>()},
                       Section<W>{width + state, state, w_c.ptr<W>()}, tokens, tokens_a_block);
    });
  });
  add_parts(stream, dw_dt.ptr<float>(), parts, blocks, width, all);
  add_parts(stream, dw_b.ptr<float>(), parts + width, blocks, state, all);
  add_parts(stream, dw_c.ptr<float>(), parts + width + state, blocks, state, all);
}

}  // namespace jamba::cuda

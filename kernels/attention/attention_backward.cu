// FlashAttention-2's backward in float32 arithmetic, FLOPs bound, in two kernels so that no sum
// needs atomics: one goes over keys for each tile of queries and makes dq, one goes over queries
// (of all heads of the group) for each tile of keys and makes dk and dv.

#include "kernels/attention/attention.cuh"
#include "kernels/attention/tiled_attention.h"
#include "kernels/core/cuda/reduce.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kGroups = kThreads / kColumns;

/// The tile that stays, which sums are made for, and the one that passes by.
template <int kHeadDim>
struct Tiles {
  static constexpr int kRowsAThread = kHeadDim > 128 ? 1 : 2;
  static constexpr int kStaying = kGroups * kRowsAThread;
  static constexpr int kPassing = 32;
  static constexpr int kWeightStride = kPassing + 4;
  static constexpr std::size_t kSharedBytes =
      sizeof(float) * (2 * (kStaying + kPassing) * kTileStride<kHeadDim> +
                       2 * kStaying * kWeightStride + 2 * kPassing);
};

struct Pointers {
  const void *q, *k, *v, *dout;
  const float *lse, *delta;
  const std::int32_t* doc_start;
};

/// delta = sum of dout * out over a head's elements; a warp a (token, head).
template <class T>
__global__ void __launch_bounds__(kThreads)
    delta_kernel(float* delta, const T* dout, const T* out, Index rows, Index seq, int num_heads,
                 int head_dim) {
  const Index row = static_cast<Index>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= rows) return;
  float sum = 0.0f;
  for (Index i = row * head_dim + threadIdx.x % kWarp; i < (row + 1) * head_dim; i += kWarp)
    sum = fmaf(to_float(dout[i]), to_float(out[i]), sum);
  sum = warp_sum(sum);
  const Index token = row / num_heads, head = row % num_heads;
  if (threadIdx.x % kWarp == 0) delta[(token / seq * num_heads + head) * seq + token % seq] = sum;
}

template <class T, int kHeadDim, int N>
__global__ void __launch_bounds__(kThreads, 1) dq_kernel(T* dq, Pointers p, AttentionSizes s) {
  using Tile = Tiles<kHeadDim>;
  constexpr int R = Tile::kRowsAThread, C = Tile::kPassing / kColumns;
  constexpr int kStride = kTileStride<kHeadDim>;
  JAMBA_DYNAMIC_SHARED(float, shared);
  float* const queries = shared;
  float* const gradients = queries + Tile::kStaying * kStride;  // of out
  float* const keys = gradients + Tile::kStaying * kStride;
  float* const values = keys + Tile::kPassing * kStride;
  float* const dscores = values + Tile::kPassing * kStride;
  const int group = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const int head = blockIdx.y;
  const Index batch = blockIdx.z;
  const Index first = (static_cast<Index>(gridDim.x) - 1 - blockIdx.x) * Tile::kStaying;
  const Index q_head = batch * s.seq * s.q_stride + static_cast<Index>(head) * s.head_dim;
  const Index kv_head =
      batch * s.seq_keys * s.kv_stride + static_cast<Index>(head / s.group) * s.head_dim;
  const Index statistics = (batch * s.num_heads + head) * s.seq;
  const std::int32_t* const starts = p.doc_start == nullptr ? nullptr : p.doc_start + batch * s.seq;
  load_tile<kThreads, Tile::kStaying, kHeadDim, N>(queries, static_cast<const T*>(p.q) + q_head,
                                                   s.q_stride, first, s.seq, s.head_dim);
  load_tile<kThreads, Tile::kStaying, kHeadDim, N>(
      gradients, static_cast<const T*>(p.dout) + q_head, s.q_stride, first, s.seq, s.head_dim);
  float4 sums[R][kHeadDim / 32];
  Index start[R], place[R];
  float lse[R], delta[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const Index i = first + group * R + r;
    const bool real = i < s.seq;
    place[r] = real ? s.place(i) : -1;
    start[r] = starts != nullptr && real ? starts[i] : 0;
    lse[r] = real ? p.lse[statistics + i] * kLog2E : 0.0f;
    delta[r] = real ? p.delta[statistics + i] : 0.0f;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) sums[r][j] = {0.0f, 0.0f, 0.0f, 0.0f};
  }
  const Index last_query = first + Tile::kStaying < s.seq ? first + Tile::kStaying : s.seq;
  const Index begin =
      first_key<Tile::kStaying>(starts, first, s.seq) / Tile::kPassing * Tile::kPassing;
  const Index end = s.place(last_query - 1) + 1;
  for (Index key0 = begin; key0 < end; key0 += Tile::kPassing) {
    __syncthreads();  // the last tile was read
    load_tile<kThreads, Tile::kPassing, kHeadDim, N>(keys, static_cast<const T*>(p.k) + kv_head,
                                                     s.kv_stride, key0, s.seq_keys, s.head_dim);
    load_tile<kThreads, Tile::kPassing, kHeadDim, N>(values, static_cast<const T*>(p.v) + kv_head,
                                                     s.kv_stride, key0, s.seq_keys, s.head_dim);
    __syncthreads();
    float scores[R][C], dweights[R][C];
    multiply_tiles<R, C, kHeadDim>(scores, queries, keys, group, column, s.head_dim);
    multiply_tiles<R, C, kHeadDim>(dweights, gradients, values, group, column, s.head_dim);
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int j = 0; j < C; ++j) {
        const Index key = key0 + column + kColumns * j;
        const bool visible = key >= start[r] && key <= place[r];
        const float weight =
            visible ? exp2_approx(fmaf(scores[r][j], s.scale * kLog2E, -lse[r])) : 0.0f;
        dscores[(group * R + r) * Tile::kWeightStride + column + kColumns * j] =
            visible ? weight * (dweights[r][j] - delta[r]) : 0.0f;
      }
    }
    __syncwarp();  // a row of dscores belongs to 8 lanes of one warp
    add_weighted_rows<R, Tile::kPassing, kHeadDim, Tile::kWeightStride>(sums, dscores, keys, group,
                                                                        column);
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const Index i = first + group * R + r;
    if (i < s.seq)
      store_row<kHeadDim>(dq + q_head + i * s.q_stride, sums[r], s.scale, column, s.head_dim);
  }
}

template <class T, int kHeadDim, int N>
__global__ void __launch_bounds__(kThreads, 1)
    dkv_kernel(T* dk, T* dv, Pointers p, AttentionSizes s) {
  using Tile = Tiles<kHeadDim>;
  constexpr int R = Tile::kRowsAThread, C = Tile::kPassing / kColumns;
  constexpr int kStride = kTileStride<kHeadDim>;
  JAMBA_DYNAMIC_SHARED(float, shared);
  float* const keys = shared;
  float* const values = keys + Tile::kStaying * kStride;
  float* const queries = values + Tile::kStaying * kStride;
  float* const gradients = queries + Tile::kPassing * kStride;  // of out
  float* const weights = gradients + Tile::kPassing * kStride;  // [keys, queries]
  float* const dscores = weights + Tile::kStaying * Tile::kWeightStride;
  float* const lse = dscores + Tile::kStaying * Tile::kWeightStride;
  float* const delta = lse + Tile::kPassing;
  const int group = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const Index batch = blockIdx.z;
  const Index first = static_cast<Index>(blockIdx.x) * Tile::kStaying;
  const Index kv_head =
      batch * s.seq_keys * s.kv_stride + static_cast<Index>(blockIdx.y) * s.head_dim;
  const std::int32_t* const starts = p.doc_start == nullptr ? nullptr : p.doc_start + batch * s.seq;
  load_tile<kThreads, Tile::kStaying, kHeadDim, N>(keys, static_cast<const T*>(p.k) + kv_head,
                                                   s.kv_stride, first, s.seq_keys, s.head_dim);
  load_tile<kThreads, Tile::kStaying, kHeadDim, N>(values, static_cast<const T*>(p.v) + kv_head,
                                                   s.kv_stride, first, s.seq_keys, s.head_dim);
  float4 dk_sums[R][kHeadDim / 32], dv_sums[R][kHeadDim / 32];
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      dk_sums[r][j] = {0.0f, 0.0f, 0.0f, 0.0f};
      dv_sums[r][j] = {0.0f, 0.0f, 0.0f, 0.0f};
    }
  }
  const Index earlier = s.seq_keys - s.seq;  // keys before the first query
  const Index begin = (first > earlier ? first - earlier : 0) / Tile::kPassing * Tile::kPassing;
  for (int member = 0; member < s.group; ++member) {
    const Index head = static_cast<Index>(blockIdx.y) * s.group + member;
    const Index q_head = batch * s.seq * s.q_stride + head * s.head_dim;
    const Index statistics = (batch * s.num_heads + head) * s.seq;
    for (Index query0 = begin; query0 < s.seq; query0 += Tile::kPassing) {
      if (first_key<Tile::kPassing>(starts, query0, s.seq) >= first + Tile::kStaying) continue;
      __syncthreads();  // the last tile was read
      load_tile<kThreads, Tile::kPassing, kHeadDim, N>(queries, static_cast<const T*>(p.q) + q_head,
                                                       s.q_stride, query0, s.seq, s.head_dim);
      load_tile<kThreads, Tile::kPassing, kHeadDim, N>(
          gradients, static_cast<const T*>(p.dout) + q_head, s.q_stride, query0, s.seq, s.head_dim);
      if (threadIdx.x < Tile::kPassing) {
        const Index i = query0 + threadIdx.x;
        lse[threadIdx.x] = i < s.seq ? p.lse[statistics + i] * kLog2E : 0.0f;
        delta[threadIdx.x] = i < s.seq ? p.delta[statistics + i] : 0.0f;
      }
      __syncthreads();
      float scores[R][C], dweights[R][C];
      multiply_tiles<R, C, kHeadDim>(scores, keys, queries, group, column, s.head_dim);
      multiply_tiles<R, C, kHeadDim>(dweights, values, gradients, group, column, s.head_dim);
#pragma unroll
      for (int j = 0; j < C; ++j) {
        const int at = column + kColumns * j;
        const Index i = query0 + at;
        const Index start = starts != nullptr && i < s.seq ? starts[i] : 0;
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const Index key = first + group * R + r;
          const bool visible = i < s.seq && key >= start && key <= s.place(i);
          const float weight =
              visible ? exp2_approx(fmaf(scores[r][j], s.scale * kLog2E, -lse[at])) : 0.0f;
          const int to = (group * R + r) * Tile::kWeightStride + at;
          weights[to] = weight;
          dscores[to] = visible ? weight * (dweights[r][j] - delta[at]) : 0.0f;
        }
      }
      __syncwarp();  // a row of weights belongs to 8 lanes of one warp
      add_weighted_rows<R, Tile::kPassing, kHeadDim, Tile::kWeightStride>(dv_sums, weights,
                                                                          gradients, group, column);
      add_weighted_rows<R, Tile::kPassing, kHeadDim, Tile::kWeightStride>(dk_sums, dscores, queries,
                                                                          group, column);
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const Index key = first + group * R + r;
    if (key >= s.seq_keys) continue;
    store_row<kHeadDim>(dk + kv_head + key * s.kv_stride, dk_sums[r], s.scale, column, s.head_dim);
    store_row<kHeadDim>(dv + kv_head + key * s.kv_stride, dv_sums[r], 1.0f, column, s.head_dim);
  }
}

}  // namespace

void tiled_attention_backward(Stream& stream, Arena& scratch, Tensor dq, Tensor dk, Tensor dv,
                              Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                              Tensor doc_start, const AttentionShape& shape, float scale) {
  const ArenaScope scope(scratch);
  float* const delta = scratch.allocate(DType::f32, lse.dims()).ptr<float>();
  const std::int64_t rows = shape.batch * shape.seq * shape.num_heads;
  const Pointers pointers{q.raw(),
                          k.raw(),
                          v.raw(),
                          dout.raw(),
                          lse.ptr<float>(),
                          delta,
                          doc_start.ptr<std::int32_t>()};
  const AttentionSizes sizes = AttentionSizes::of(shape, scale);
  visit_float(q.dtype(), [&]<class T>(T) {
    launch<kThreads>(stream, delta_kernel<T>, {ceil_div(rows, kThreads / kWarp)}, 0, delta,
                     dout.ptr<T>(), out.ptr<T>(), rows, shape.seq, sizes.num_heads, sizes.head_dim);
    visit_head_dim(shape.head_dim, [&]<int kHeadDim>(std::integral_constant<int, kHeadDim>) {
      using Tile = Tiles<kHeadDim>;
      visit_pack<4>(
          shape.head_dim,
          [&]<int N>(std::integral_constant<int, N>) {
            launch<kThreads>(stream, dq_kernel<T, kHeadDim, N>,
                             {ceil_div(shape.seq, Tile::kStaying), shape.num_heads, shape.batch},
                             Tile::kSharedBytes, dq.ptr<T>(), pointers, sizes);
            launch<kThreads>(
                stream, dkv_kernel<T, kHeadDim, N>,
                {ceil_div(shape.seq_keys, Tile::kStaying), shape.num_kv_heads, shape.batch},
                Tile::kSharedBytes, dk.ptr<T>(), dv.ptr<T>(), pointers, sizes);
          },
          q.ptr<T>(), k.ptr<T>(), v.ptr<T>(), dout.ptr<T>());
    });
  });
}

}  // namespace jamba::cuda

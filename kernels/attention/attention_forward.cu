// FlashAttention-2's forward in float32 arithmetic: FLOPs bound (FMA units; tensor cores are
// cuDNN's). One block a tile of queries and head; keys pass by in tiles.

#include "kernels/attention/attention.cuh"
#include "kernels/attention/tiled_attention.h"
#include "kernels/core/cuda/reduce.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kGroups = kThreads / kColumns;
constexpr int kKeys = 64;  // of a tile
constexpr int kWeightStride = kKeys + 4;
constexpr float kLn2 = 0.6931471805599453f;

/// Rows of queries a thread; sums and scores of more would not fit in registers.
template <int kHeadDim>
inline constexpr int kRowsAThread = kHeadDim > 128 ? 2 : 4;

template <int kHeadDim>
constexpr std::size_t shared_bytes() {
  constexpr int kQueries = kGroups * kRowsAThread<kHeadDim>;
  return sizeof(float) * ((kQueries + kKeys) * kTileStride<kHeadDim> + kQueries * kWeightStride);
}

template <class T, int kHeadDim, int N>
__global__ void __launch_bounds__(kThreads, 2)
    forward_kernel(T* out, float* lse, const T* q, const T* k, const T* v,
                   const std::int32_t* doc_start, AttentionSizes s) {
  constexpr int R = kRowsAThread<kHeadDim>, C = kKeys / kColumns, kQueries = kGroups * R;
  JAMBA_DYNAMIC_SHARED(float, shared);
  float* const queries = shared;
  float* const keys = queries + kQueries * kTileStride<kHeadDim>;  // then values
  float* const weights = keys + kKeys * kTileStride<kHeadDim>;
  const int group = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const int head = blockIdx.y;
  const Index batch = blockIdx.z;
  // Late queries see most keys: those blocks start first.
  const Index first = (static_cast<Index>(gridDim.x) - 1 - blockIdx.x) * kQueries;
  const Index q_head = batch * s.seq * s.q_stride + static_cast<Index>(head) * s.head_dim;
  const Index kv_head =
      batch * s.seq_keys * s.kv_stride + static_cast<Index>(head / s.group) * s.head_dim;
  const std::int32_t* const starts = doc_start == nullptr ? nullptr : doc_start + batch * s.seq;
  load_tile<kThreads, kQueries, kHeadDim, N>(queries, q + q_head, s.q_stride, first, s.seq,
                                             s.head_dim);
  float max[R], sum[R];
  float4 sums[R][kHeadDim / 32];
  Index start[R], place[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const Index i = first + group * R + r;
    max[r] = -3.402823466e38f;
    sum[r] = 0.0f;
    place[r] = s.place(i);  // beyond the last query too: nobody stores what it makes
    start[r] = starts != nullptr && i < s.seq ? starts[i] : 0;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) sums[r][j] = {0.0f, 0.0f, 0.0f, 0.0f};
  }
  const Index last_query = first + kQueries < s.seq ? first + kQueries : s.seq;
  const Index begin = first_key<kQueries>(starts, first, s.seq) / kKeys * kKeys;
  const Index end = s.place(last_query - 1) + 1;
  const float factor = s.scale * kLog2E;
  for (Index first_of_tile = begin; first_of_tile < end; first_of_tile += kKeys) {
    __syncthreads();  // the last tile's values were read
    load_tile<kThreads, kKeys, kHeadDim, N>(keys, k + kv_head, s.kv_stride, first_of_tile,
                                            s.seq_keys, s.head_dim);
    __syncthreads();
    float scores[R][C];
    multiply_tiles<R, C, kHeadDim>(scores, queries, keys, group, column, s.head_dim);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      float most = max[r];
#pragma unroll
      for (int j = 0; j < C; ++j) {
        const Index key = first_of_tile + column + kColumns * j;
        const bool visible = key >= start[r] && key <= place[r];
        scores[r][j] = visible ? scores[r][j] * factor : -INFINITY;
        most = fmaxf(most, scores[r][j]);
      }
      most = warp_max<kColumns>(most);
      const float shrink = exp2_approx(max[r] - most);
      max[r] = most;
      float added = 0.0f;
#pragma unroll
      for (int j = 0; j < C; ++j) {
        const float weight = exp2_approx(scores[r][j] - most);
        weights[(group * R + r) * kWeightStride + column + kColumns * j] = weight;
        added += weight;
      }
      sum[r] = fmaf(sum[r], shrink, warp_sum<kColumns>(added));
#pragma unroll
      for (int j = 0; j < kHeadDim / 32; ++j) {
        sums[r][j].x *= shrink;
        sums[r][j].y *= shrink;
        sums[r][j].z *= shrink;
        sums[r][j].w *= shrink;
      }
    }
    __syncthreads();  // weights are there, keys were read
    load_tile<kThreads, kKeys, kHeadDim, N>(keys, v + kv_head, s.kv_stride, first_of_tile,
                                            s.seq_keys, s.head_dim);
    __syncthreads();
    add_weighted_rows<R, kKeys, kHeadDim, kWeightStride>(sums, weights, keys, group, column);
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const Index i = first + group * R + r;
    if (i >= s.seq) continue;
    store_row<kHeadDim>(out + q_head + i * s.q_stride, sums[r], 1.0f / sum[r], column, s.head_dim);
    if (column == 0) lse[(batch * s.num_heads + head) * s.seq + i] = max[r] * kLn2 + logf(sum[r]);
  }
}

}  // namespace

void tiled_attention_forward(Stream& stream, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                             Tensor doc_start, const AttentionShape& shape, float scale) {
  visit_float(q.dtype(), [&]<class T>(T) {
    visit_head_dim(shape.head_dim, [&]<int kHeadDim>(std::integral_constant<int, kHeadDim>) {
      constexpr int kQueries = kGroups * kRowsAThread<kHeadDim>;
      visit_pack<4>(
          shape.head_dim,
          [&]<int N>(std::integral_constant<int, N>) {
            launch<kThreads>(stream, forward_kernel<T, kHeadDim, N>,
                             {ceil_div(shape.seq, kQueries), shape.num_heads, shape.batch},
                             shared_bytes<kHeadDim>(), out.ptr<T>(), lse.ptr<float>(), q.ptr<T>(),
                             k.ptr<T>(), v.ptr<T>(), doc_start.ptr<std::int32_t>(),
                             AttentionSizes::of(shape, scale));
          },
          q.ptr<T>(), k.ptr<T>(), v.ptr<T>());
    });
  });
}

}  // namespace jamba::cuda

#pragma once
// Pieces of tiled attention. Each tensor's tile lies in shared memory as float32, rows of the
// head's elements padded by one float4 so that lanes that read different rows meet different banks.
//
// Threads of a block form a grid of kThreads / 8 row groups by 8 columns. A thread of row group g
// and column c computes, of a product of two tiles, rows g * R + r and columns c + 8 * j; of sums
// over tiles, rows g * R + r and the float4s c, c + 8, ... of the head's elements.

#include "kernels/attention/attention.h"
#include "kernels/core/cuda/launch.cuh"
#include "kernels/core/cuda/reduce.cuh"

namespace jamba::cuda {

/// The sizes of a call, and the strides of a token in elements.
struct AttentionSizes {
  Index seq, seq_keys, q_stride, kv_stride;
  int num_heads, group;  // query heads a key head
  int head_dim;
  float scale;

  static AttentionSizes of(const AttentionShape& s, float scale) {
    return {s.seq,
            s.seq_keys,
            s.num_heads * s.head_dim,
            s.num_kv_heads * s.head_dim,
            static_cast<int>(s.num_heads),
            static_cast<int>(s.num_heads / s.num_kv_heads),
            static_cast<int>(s.head_dim),
            scale};
  }
  /// The key at which query i sits.
  __device__ __forceinline__ Index place(Index query) const { return seq_keys - seq + query; }
};

inline constexpr int kColumns = 8;

template <int kHeadDim>
inline constexpr int kTileStride = kHeadDim + 4;

/// Rows [first, first + kRows) of a head into a tile; zeros beyond `end` and beyond head_dim.
/// N: elements that a thread loads at once.
template <int kThreads, int kRows, int kHeadDim, int N, class T>
__device__ __forceinline__ void load_tile(float* tile, const T* head, Index stride, Index first,
                                          Index end, int head_dim) {
  constexpr int kPacks = kHeadDim / N;
  for (int i = threadIdx.x; i < kRows * kPacks; i += kThreads) {
    const int row = i / kPacks, at = i % kPacks * N;
    float values[N] = {};
    if (first + row < end && at < head_dim) load_pack(values, head + (first + row) * stride + at);
#pragma unroll
    for (int j = 0; j < N; ++j) tile[row * kTileStride<kHeadDim> + at + j] = values[j];
  }
}

__device__ __forceinline__ float4 read4(const float* p) { return *as_wide<const float4>(p); }

/// out[r][j] = dot of a's row g * R + r and b's row c + 8 * j. Summed by sixteens, then over those:
/// one chain over a long head would double the error of dq.
template <int R, int C, int kHeadDim>
__device__ __forceinline__ void multiply_tiles(float (&out)[R][C], const float* a, const float* b,
                                               int group, int column, int head_dim) {
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int j = 0; j < C; ++j) out[r][j] = 0.0f;
  }
  constexpr int kStride = kTileStride<kHeadDim>;
  for (int block = 0; block < head_dim; block += 16) {
    float part[R][C] = {};
#pragma unroll
    for (int d = block; d < block + 16; d += 4) {
      float4 x[R];
#pragma unroll
      for (int r = 0; r < R; ++r) x[r] = read4(a + (group * R + r) * kStride + d);
#pragma unroll
      for (int j = 0; j < C; ++j) {
        const float4 y = read4(b + (column + kColumns * j) * kStride + d);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          part[r][j] = fmaf(x[r].x, y.x, part[r][j]);
          part[r][j] = fmaf(x[r].y, y.y, part[r][j]);
          part[r][j] = fmaf(x[r].z, y.z, part[r][j]);
          part[r][j] = fmaf(x[r].w, y.w, part[r][j]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int j = 0; j < C; ++j) out[r][j] += part[r][j];
    }
  }
}

/// sums[r] += sum over k of weights[g * R + r][k] * rows[k], for the thread's float4s. weights has
/// rows of kWeightStride floats.
template <int R, int kRows, int kHeadDim, int kWeightStride>
__device__ __forceinline__ void add_weighted_rows(float4 (&sums)[R][kHeadDim / 32],
                                                  const float* weights, const float* rows,
                                                  int group, int column) {
  for (int k = 0; k < kRows; ++k) {
    float weight[R];
#pragma unroll
    for (int r = 0; r < R; ++r) weight[r] = weights[(group * R + r) * kWeightStride + k];
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      const float4 v = read4(rows + k * kTileStride<kHeadDim> + 4 * (column + kColumns * j));
#pragma unroll
      for (int r = 0; r < R; ++r) {
        sums[r][j].x = fmaf(weight[r], v.x, sums[r][j].x);
        sums[r][j].y = fmaf(weight[r], v.y, sums[r][j].y);
        sums[r][j].z = fmaf(weight[r], v.z, sums[r][j].z);
        sums[r][j].w = fmaf(weight[r], v.w, sums[r][j].w);
      }
    }
  }
}

/// The thread's part of rows of a head, times a factor, to memory.
template <int kHeadDim, class T>
__device__ __forceinline__ void store_row(T* row, const float4 (&sums)[kHeadDim / 32], float factor,
                                          int column, int head_dim) {
#pragma unroll
  for (int j = 0; j < kHeadDim / 32; ++j) {
    const int d = 4 * (column + kColumns * j);
    const float values[4] = {sums[j].x, sums[j].y, sums[j].z, sums[j].w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (d + i < head_dim) row[d + i] = from_float<T>(values[i] * factor);
    }
  }
}

/// The first key that any of the queries [first, first + kRows) sees; a large number if there are
/// none. Each warp finds it for itself.
template <int kRows>
__device__ __forceinline__ int first_key(const std::int32_t* doc_start, Index first, Index end) {
  if (doc_start == nullptr) return 0;
  int least = 0x7fffffff;
  for (int row = threadIdx.x % kWarp; row < kRows; row += kWarp) {
    if (first + row < end) least = doc_start[first + row] < least ? doc_start[first + row] : least;
  }
  return warp_min(least);
}

/// Calls f with the elements of a head that the kernels are made for, of at least so many.
/// Errors: UnsupportedError above 256.
template <class F>
void visit_head_dim(std::int64_t head_dim, F&& f) {
  if (head_dim <= 64) {
    f(std::integral_constant<int, 64>{});
  } else if (head_dim <= 128) {
    f(std::integral_constant<int, 128>{});
  } else if (head_dim <= 256) {
    f(std::integral_constant<int, 256>{});
  } else {
    throw UnsupportedError("attention on CUDA takes heads of at most 256 elements");
  }
}

}  // namespace jamba::cuda

#pragma once
// What the scan's kernels share.
//
// Everything is [batch, seq, inner], channels last, and read as it lies: a block takes one part of
// a sequence (all of it, or some of its documents) and a tile of channels, and walks along time.
// Lanes of a warp: 4 state lanes (the low bits) by 8 channel groups. A lane holds S states of C
// channels in registers: state lane q has states [q * S, (q + 1) * S), the group's channels lie
// side by side. States beyond the last one have A = B = C = 0 and stay 0.
//
// Per token and channel: dt = softplus(..) and dt * u are computed once by one thread (prologue),
// steps only multiply, add and take 2^(dt * A2), A2 = A * log2(e), and what remains (gate, D skip)
// is again one thread's (epilogue).

#include "kernels/core/cuda/launch.cuh"
#include "kernels/mamba/selective_scan_plan.h"

namespace jamba::cuda {

inline constexpr int kScanThreads = 128;
inline constexpr int kScanWarps = kScanThreads / kWarp;
inline constexpr int kStateLanes = 4, kChannelLanes = kWarp / kStateLanes;

/// Channels of a block whose lanes hold C each.
template <int C>
inline constexpr int kTileChannels = kScanWarps* kChannelLanes* C;

/// How sequences are cut along time where their channels alone would not fill the device. Documents
/// do not depend on each other: part k is the steps from the first document that begins in
/// [k * steps, (k + 1) * steps), or later, to where part k + 1 begins. Part 0 begins at 0.
struct ScanParts {
  const std::int32_t*
      first_document;  // [batch, count]: where it begins, or seq; null if count is 1
  int count = 1;

  /// As many as give each multiprocessor so many warps, of kScanChunk steps at least. Takes memory
  /// that must live until the scan is issued.
  static ScanParts of(Stream&, Arena& scratch, const SelectiveScanInputs&, const ScanPlan&,
                      int warps_a_processor);
};

/// Steps [from, to) of a sequence.
struct ScanSpan {
  int from, to;
};

/// Inputs of a call, as pointers.
template <class T>
struct ScanArrays {
  const T *u, *delta, *z;
  const float *b, *c, *delta_bias, *d, *a_log, *h0;
  const std::int32_t* doc_start;
  Index seq, inner, begin, end;  // of channels
  int state;
  int chunks;
  ScanParts parts;

  static ScanArrays of(const SelectiveScanInputs& in, const ScanPlan& plan,
                       const ScanParts& parts) {
    return {in.u.ptr<T>(),
            in.delta.ptr<T>(),
            in.z.ptr<T>(),
            in.b.ptr<float>(),
            in.c.ptr<float>(),
            in.delta_bias.ptr<float>(),
            in.d.ptr<float>(),
            in.a_log.ptr<float>(),
            in.h0.ptr<float>(),
            in.doc_start.ptr<std::int32_t>(),
            plan.seq,
            plan.inner,
            plan.range.begin,
            plan.end_channel(),
            static_cast<int>(plan.state),
            static_cast<int>(plan.chunks()),
            parts};
  }

  /// What this block (blockIdx.z) has of a sequence; nothing if no document begins in its part.
  __device__ __forceinline__ ScanSpan span(Index batch) const {
    const int part = blockIdx.z;
    return {part == 0 ? 0 : begin_of_part(batch, part), begin_of_part(batch, part + 1)};
  }

  __device__ __forceinline__ int begin_of_part(Index batch, int part) const {
    int from = static_cast<int>(seq);
    for (; part < parts.count && from == seq; ++part)
      from = parts.first_document[batch * parts.count + part];
    return from;
  }

  /// The state of a channel at a chunk's first step, before a reset there: private layout.
  __device__ __forceinline__ Index saved_state(Index batch, Index chunk, Index channel) const {
    return ((batch * chunks + chunk) * inner + channel) * state;
  }
};

/// Where a thread stands.
template <int S, int C>
struct ScanLane {
  int state_lane, channel;  // the first of the lane's channels, within the block's tile
  Index first_channel;      // of the tile

  __device__ __forceinline__ explicit ScanLane(Index begin)
      : state_lane(threadIdx.x % kStateLanes),
        channel(static_cast<int>(threadIdx.x) / kStateLanes * C),
        first_channel(begin + static_cast<Index>(blockIdx.x) * kTileChannels<C>) {}
  __device__ __forceinline__ int state(int k) const { return state_lane * S + k; }
};

/// A * log2(e), 0 for states and channels that do not exist.
template <int S, int C, class T>
__device__ __forceinline__ void load_a2(float (&a2)[C][S], const ScanArrays<T>& in,
                                        const ScanLane<S, C>& lane) {
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const Index channel = lane.first_channel + lane.channel + c;
#pragma unroll
    for (int k = 0; k < S; ++k) {
      const bool real = channel < in.end && lane.state(k) < in.state;
      a2[c][k] = real ? -expf(in.a_log[channel * in.state + lane.state(k)]) * kLog2E : 0.0f;
    }
  }
}

/// [channels, states] from an array, or to one, with `at` the place of the tile's first channel.
template <int S, int C, class T>
__device__ __forceinline__ void load_states(float (&h)[C][S], const float* from, Index at,
                                            const ScanArrays<T>& in, const ScanLane<S, C>& lane) {
#pragma unroll
  for (int c = 0; c < C; ++c) {
#pragma unroll
    for (int k = 0; k < S; ++k) {
      const bool real = lane.first_channel + lane.channel + c < in.end && lane.state(k) < in.state;
      h[c][k] = real ? from[at + (lane.channel + c) * in.state + lane.state(k)] : 0.0f;
    }
  }
}
template <int S, int C, class T>
__device__ __forceinline__ void store_states(float* to, Index at, const float (&h)[C][S],
                                             const ScanArrays<T>& in, const ScanLane<S, C>& lane) {
#pragma unroll
  for (int c = 0; c < C; ++c) {
    if (lane.first_channel + lane.channel + c >= in.end) continue;
#pragma unroll
    for (int k = 0; k < S; ++k) {
      if (lane.state(k) < in.state)
        to[at + (lane.channel + c) * in.state + lane.state(k)] = h[c][k];
    }
  }
}

/// Bit t: a document begins at step first + t. The same for all lanes of a warp.
template <int kSteps, class T>
__device__ __forceinline__ unsigned resets_of(const ScanArrays<T>& in, Index batch, Index first) {
  static_assert(kSteps <= kWarp);
  if (in.doc_start == nullptr) return 0;
  const int lane = threadIdx.x % kWarp;
  const Index t = first + lane;
  const bool begins =
      lane < kSteps && t < in.seq && in.doc_start[batch * in.seq + t] == static_cast<int>(t);
  return __ballot_sync(kAllLanes, begins);
}

/// B and C of steps [first, first + kSteps) as [kSteps][4 * S] floats; zeros from `to` on.
template <int S, int kSteps, class T>
__device__ __forceinline__ void load_projections(float* b, float* c, const ScanArrays<T>& in,
                                                 Index batch, Index first, int to) {
  constexpr int kWidth = kStateLanes * S;
  for (int i = threadIdx.x; i < kSteps * kWidth; i += kScanThreads) {
    const int t = i / kWidth, n = i % kWidth;
    const bool real = first + t < to && n < in.state;
    const Index at = (batch * in.seq + first + t) * in.state + n;
    b[i] = real ? in.b[at] : 0.0f;
    c[i] = real ? in.c[at] : 0.0f;
  }
}

/// N consecutive floats of shared memory, aligned to all of them.
template <int N>
__device__ __forceinline__ void read_shared(float (&out)[N], const float* from) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 v = *as_wide<const float4>(from + i);
      out[i] = v.x;
      out[i + 1] = v.y;
      out[i + 2] = v.z;
      out[i + 3] = v.w;
    }
  } else if constexpr (N == 2) {
    const float2 v = *as_wide<const float2>(from);
    out[0] = v.x;
    out[1] = v.y;
  } else {
    static_assert(N == 1);
    out[0] = *from;
  }
}

/// How many channels a lane holds: as many as leave every scheduler a few warps.
/// warps_a_processor: what a kernel needs to keep a multiprocessor busy.
inline int channels_a_lane(Stream& stream, const ScanPlan& plan, int most, int warps_a_processor) {
  const std::int64_t warps =
      std::int64_t{properties(stream).multiProcessorCount} * warps_a_processor;
  int channels = most;
  while (channels > 1 && plan.batch * plan.inner < warps * kChannelLanes * channels) channels /= 2;
  return channels;
}

}  // namespace jamba::cuda

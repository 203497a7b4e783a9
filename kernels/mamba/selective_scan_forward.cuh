#pragma once
// The forward kernel, for S states a lane.

#include "kernels/mamba/selective_scan.cuh"

namespace jamba::cuda {

inline constexpr int kForwardSteps = 16;  // of a tile in shared memory
static_assert(kScanChunk % kForwardSteps == 0);

template <int S, int C>
inline constexpr std::size_t kForwardShared = sizeof(float) * kForwardSteps*(3 * kTileChannels<C> +
                                                                             2 * kStateLanes * S);

/// Adds the state lanes' shares of y; each of the first C state lanes (all, if there are fewer
/// channels than lanes) ends with the sum of one channel, the one that is returned.
template <int C>
__device__ __forceinline__ int sum_over_states(float& out, const float (&y)[C], int q) {
  if constexpr (C == 4) {
    const float a = ((q & 1) ? y[1] : y[0]) + __shfl_xor_sync(kAllLanes, (q & 1) ? y[0] : y[1], 1);
    const float b = ((q & 1) ? y[3] : y[2]) + __shfl_xor_sync(kAllLanes, (q & 1) ? y[2] : y[3], 1);
    out = ((q & 2) ? b : a) + __shfl_xor_sync(kAllLanes, (q & 2) ? a : b, 2);
    return q;
  } else if constexpr (C == 2) {
    out = ((q & 1) ? y[1] : y[0]) + __shfl_xor_sync(kAllLanes, (q & 1) ? y[0] : y[1], 1);
    out += __shfl_xor_sync(kAllLanes, out, 2);
    return q & 1;
  } else {
    out = y[0] + __shfl_xor_sync(kAllLanes, y[0], 1);
    out += __shfl_xor_sync(kAllLanes, out, 2);
    return 0;
  }
}

/// MUFU bound: one 2^x a state, token and channel. y and states may be absent (null).
template <class T, int S, int C>
__global__ void __launch_bounds__(kScanThreads, 4)
    scan_forward_kernel(T* out, T* saved_y, float* states, float* h_last, ScanArrays<T> in) {
  constexpr int kSteps = kForwardSteps, kTile = kTileChannels<C>, kWidth = kStateLanes * S;
  JAMBA_DYNAMIC_SHARED(float, shared);
  float* const dt = shared;                // [kSteps, kTile]
  float* const dtu = dt + kSteps * kTile;  // dt * u
  float* const y = dtu + kSteps * kTile;
  float* const b = y + kSteps * kTile;  // [kSteps, kWidth]
  float* const c = b + kSteps * kWidth;
  const Index batch = blockIdx.y;
  const ScanLane<S, C> lane(in.begin);
  float a2[C][S], h[C][S];
  load_a2(a2, in, lane);
  const Index h_at = (batch * in.inner + lane.first_channel) * in.state;
  const ScanSpan span = in.span(batch);
  if (in.h0 != nullptr && span.from == 0) {
    load_states(h, in.h0, h_at, in, lane);
  } else {
#pragma unroll
    for (int i = 0; i < C; ++i) {
#pragma unroll
      for (int k = 0; k < S; ++k) h[i][k] = 0.0f;
    }
  }
  // A part that begins within a tile computes its earlier steps from nothing, and keeps none of
  // them.
  for (Index first = span.from / kSteps * kSteps; first < span.to; first += kSteps) {
    if (states != nullptr && first % kScanChunk == 0 && first >= span.from) {
      store_states(states, in.saved_state(batch, first / kScanChunk, lane.first_channel), h, in,
                   lane);
    }
    // --- prologue: dt and dt * u of the tile ---
#pragma unroll 4
    for (int i = threadIdx.x; i < kSteps * kTile; i += kScanThreads) {
      const Index t = first + i / kTile, channel = lane.first_channel + i % kTile;
      const Index at = (batch * in.seq + t) * in.inner + channel;
      float step = 0.0f, input = 0.0f;
      if (t < span.to && channel < in.end) {
        step = softplus(to_float(in.delta[at]) + in.delta_bias[channel]).value;
        input = to_float(in.u[at]);
      }
      dt[i] = step;
      dtu[i] = step * input;
    }
    load_projections<S, kSteps>(b, c, in, batch, first, span.to);
    const unsigned resets = resets_of<kSteps>(in, batch, first);
    __syncthreads();
    // --- steps ---
    const auto step = [&](int t) {
      float bt[S], ct[S], dt_t[C], dtu_t[C], part[C];
      read_shared(bt, b + t * kWidth + lane.state_lane * S);
      read_shared(ct, c + t * kWidth + lane.state_lane * S);
      read_shared(dt_t, dt + t * kTile + lane.channel);
      read_shared(dtu_t, dtu + t * kTile + lane.channel);
#pragma unroll
      for (int i = 0; i < C; ++i) {
        part[i] = 0.0f;
#pragma unroll
        for (int k = 0; k < S; ++k) {
          h[i][k] = fmaf(dtu_t[i], bt[k], exp2_approx(dt_t[i] * a2[i][k]) * h[i][k]);
          part[i] = fmaf(h[i][k], ct[k], part[i]);
        }
      }
      float sum = 0.0f;
      const int channel = sum_over_states(sum, part, lane.state_lane);
      if (lane.state_lane < C) y[t * kTile + lane.channel + channel] = sum;
    };
    if (resets == 0) {
#pragma unroll 4
      for (int t = 0; t < kSteps; ++t) step(t);
    } else {
      for (int t = 0; t < kSteps; ++t) {
        if ((resets >> t & 1) != 0) {  // set, not multiplied: a NaN stays in its document
#pragma unroll
          for (int i = 0; i < C; ++i) {
#pragma unroll
            for (int k = 0; k < S; ++k) h[i][k] = 0.0f;
          }
        }
        step(t);
      }
    }
    __syncthreads();
    // --- epilogue: D skip and gate ---
#pragma unroll 4
    for (int i = threadIdx.x; i < kSteps * kTile; i += kScanThreads) {
      const Index t = first + i / kTile, channel = lane.first_channel + i % kTile;
      if (t < span.from || t >= span.to || channel >= in.end) continue;
      const Index at = (batch * in.seq + t) * in.inner + channel;
      const float value = fmaf(in.d[channel], to_float(in.u[at]), y[i]);
      if (saved_y != nullptr) saved_y[at] = from_float<T>(value);
      out[at] = from_float<T>(value * silu(to_float(in.z[at])));
    }
    // The next tile's dt, dtu, b and c were last read before the barrier above, and its y comes
    // after one.
  }
  const bool last = span.to == in.seq && (span.from < span.to || in.seq == 0);
  if (h_last != nullptr && last) store_states(h_last, h_at, h, in, lane);
}

/// One file instantiates it for each number of states a lane.
template <int S>
void scan_forward(Stream&, Arena& scratch, Tensor out, Tensor h_last, const SelectiveScanSaved&,
                  const SelectiveScanInputs&, const ScanPlan&);

template <int S, int kMostChannels>
void launch_scan_forward(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
                         const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                         const ScanPlan& plan) {
  constexpr int kWarpsAProcessor = 6;
  const ArenaScope scope(scratch);
  const ScanParts parts = ScanParts::of(stream, scratch, in, plan, kWarpsAProcessor);
  visit_float(in.u.dtype(), [&]<class T>(T) {
    const auto run = [&]<int C>(std::integral_constant<int, C>) {
      const std::int64_t channels = plan.end_channel() - plan.range.begin;
      launch<kScanThreads>(stream, scan_forward_kernel<T, S, C>,
                           {ceil_div(channels, kTileChannels<C>), plan.batch, parts.count},
                           kForwardShared<S, C>, out.ptr<T>(), saved.y.ptr<T>(),
                           static_cast<float*>(saved.states.raw()), h_last.ptr<float>(),
                           ScanArrays<T>::of(in, plan, parts));
    };
    const int channels = channels_a_lane(stream, plan, kMostChannels, kWarpsAProcessor);
    if constexpr (kMostChannels >= 4) {
      if (channels == 4) return run(std::integral_constant<int, 4>{});
    }
    if constexpr (kMostChannels >= 2) {
      if (channels == 2) return run(std::integral_constant<int, 2>{});
    }
    run(std::integral_constant<int, 1>{});
  });
}

}  // namespace jamba::cuda

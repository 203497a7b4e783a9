#pragma once
// The backward kernel, for S states a lane.
//
// Chunks of kScanChunk steps from the last to the first, each from its saved state: first forward
// over the chunk, leaving the state at every kSegment-th step in shared memory; then segments from
// the last to the first: forward again with decays and products in registers, then back. So each
// 2^x is taken twice.

#include "kernels/core/cuda/add_parts.cuh"
#include "kernels/mamba/selective_scan.cuh"

namespace jamba::cuda {

inline constexpr int kChunk = static_cast<int>(kScanChunk);
inline constexpr int kSegment = 8;
inline constexpr int kSegments = kChunk / kSegment;

/// Shared memory, in floats.
template <int S, int C>
struct BackwardShared {
  static constexpr int kTile = kTileChannels<C>, kWidth = kStateLanes * S;
  static constexpr int kDt = 0, kDtu = kDt + kChunk * kTile;  // [kChunk, kTile]
  static constexpr int kB = kDtu + kChunk * kTile;            // [kChunk, kWidth]
  static constexpr int kC = kB + kChunk * kWidth;
  static constexpr int kStates = kC + kChunk * kWidth;              // [kSegments, kTile, kWidth]
  static constexpr int kDy = kStates + kSegments * kTile * kWidth;  // [kSegment, kTile]
  static constexpr int kGb = kDy + kSegment * kTile;                // sum of g B
  static constexpr int kGa = kGb + kSegment * kTile;                // sum of g p A2
  static constexpr int kParts = kGa + kSegment * kTile;             // [warps, kSegment, 2, kWidth]
  static constexpr int kDa = kParts + kScanWarps * kSegment * 2 * kWidth;  // [kTile, kWidth]
  static constexpr int kEnd = kDa + kTile * kWidth;
  static constexpr std::size_t kBytes = kEnd * sizeof(float);
};

/// What the kernel leaves for the sums over blocks and parts of sequences. tiles: of channels.
struct BackwardParts {
  float* bc;    // [tiles, batch, seq, 2, state]
  float* da;    // [batch, parts, inner, state], towards A
  float* d;     // [batch, parts, inner]
  float* bias;  // [batch, parts, inner]
};

template <class T>
struct BackwardArrays {
  T *du, *ddelta, *dz, *out;
  const T *dout, *y;
  float* dh0;
  const float *dh_last, *states;
};

/// Sums values[i] of the 8 channel lanes; a lane keeps kValues / 8 of them (at least one), from
/// `first` on. A butterfly: each lane gives half of what it has left to its partner.
template <int kValues>
__device__ __forceinline__ int scatter_over_channels(float (&values)[kValues], int channel_lane) {
  int first = 0;
  int bit = kStateLanes;  // of the lane
  int count = kValues;
#pragma unroll
  for (int level = 0; level < 3; ++level, bit *= 2) {
    const bool upper = (channel_lane >> level & 1) != 0;
    if (count > 1) {
      count /= 2;
#pragma unroll
      for (int i = 0; i < kValues / 2; ++i) {
        if (i >= count) break;
        const float keep = upper ? values[i + count] : values[i];
        const float send = upper ? values[i] : values[i + count];
        values[i] = keep + __shfl_xor_sync(kAllLanes, send, bit);
      }
      first += upper ? count : 0;
    } else {
      values[0] += __shfl_xor_sync(kAllLanes, values[0], bit);
    }
  }
  return first;
}

/// Issue bound. db and dc leave as parts of a tile; no atomics anywhere.
template <class T, int S, int C>
__global__ void __launch_bounds__(kScanThreads, 2)
    scan_backward_kernel(BackwardArrays<T> grad, BackwardParts parts, ScanArrays<T> in) {
  using Shared = BackwardShared<S, C>;
  constexpr int kTile = Shared::kTile, kWidth = Shared::kWidth, K = kSegment;
  JAMBA_DYNAMIC_SHARED(float, shared);
  float* const dt = shared + Shared::kDt;
  float* const dtu = shared + Shared::kDtu;
  float* const b = shared + Shared::kB;
  float* const c = shared + Shared::kC;
  float* const states = shared + Shared::kStates;
  float* const dy = shared + Shared::kDy;
  float* const gb = shared + Shared::kGb;
  float* const ga = shared + Shared::kGa;
  float* const bc = shared + Shared::kParts;
  float* const da = shared + Shared::kDa;
  const Index batch = blockIdx.y;
  const ScanLane<S, C> lane(in.begin);
  const int warp = threadIdx.x / kWarp, channel_lane = threadIdx.x % kWarp / kStateLanes;
  const Index row = batch * in.seq;
  const Index h_at = (batch * in.inner + lane.first_channel) * in.state;
  float a2[C][S], g[C][S];
  load_a2(a2, in, lane);
#pragma unroll
  for (int i = 0; i < C; ++i) {
#pragma unroll
    for (int k = 0; k < S; ++k) {
      g[i][k] = 0.0f;
      da[(lane.channel + i) * kWidth + lane.state(k)] = 0.0f;  // this lane's alone
    }
  }
  const ScanSpan span = in.span(batch);
  if (grad.dh_last != nullptr && span.to == in.seq) load_states(g, grad.dh_last, h_at, in, lane);
  // A thread's elements of prologue and epilogue are all of one channel.
  static_assert(kScanThreads % kTile == 0 || kTile % kScanThreads == 0);
  static_assert(kTile <= kScanThreads);
  const int my_channel = threadIdx.x % kTile;
  const Index channel = lane.first_channel + my_channel;
  const bool real_channel = channel < in.end;
  const float skip = real_channel ? in.d[channel] : 0.0f;
  const float bias = real_channel ? in.delta_bias[channel] : 0.0f;
  float d_sum = 0.0f, bias_sum = 0.0f;
  constexpr int kStride = kScanThreads / kTile;  // steps between a thread's elements

  // Steps of the first chunk before the part are computed, with a gradient of nothing.
  const int first_chunk = span.from / kChunk;
  const int last_chunk = span.from < span.to ? (span.to - 1) / kChunk : -1;
  for (int chunk = last_chunk; chunk >= first_chunk; --chunk) {
    const Index first = static_cast<Index>(chunk) * kChunk;
#pragma unroll 4
    for (int t = threadIdx.x / kTile; t < kChunk; t += kStride) {
      const bool real = real_channel && first + t < span.to;
      const Index at = (row + first + t) * in.inner + channel;
      const float step = real ? softplus(to_float(in.delta[at]) + bias).value : 0.0f;
      dt[t * kTile + my_channel] = step;
      dtu[t * kTile + my_channel] = real ? step * to_float(in.u[at]) : 0.0f;
    }
    load_projections<S, kChunk>(b, c, in, batch, first, span.to);
    float h[C][S];
    load_states(h, grad.states, in.saved_state(batch, chunk, lane.first_channel), in, lane);
    const unsigned resets_low = resets_of<kWarp>(in, batch, first);
    const unsigned resets_high = resets_of<kWarp>(in, batch, first + kWarp);
    const int segments =
        span.to - first >= kChunk ? kSegments : static_cast<int>(ceil_div(span.to - first, K));
    const int first_segment = span.from > first ? static_cast<int>((span.from - first) / K) : 0;
    __syncthreads();
    // --- states at the segments' first steps ---
    for (int segment = 0; segment < segments; ++segment) {
#pragma unroll
      for (int i = 0; i < C; ++i) {
#pragma unroll
        for (int k = 0; k < S; ++k)
          states[(segment * kTile + lane.channel + i) * kWidth + lane.state(k)] = h[i][k];
      }
      if (segment + 1 == segments) break;
      const unsigned resets =
          (segment < kSegments / 2 ? resets_low : resets_high) >> segment % (kSegments / 2) * K;
#pragma unroll
      for (int j = 0; j < K; ++j) {
        const int t = segment * K + j;
        float bt[S], dt_t[C], dtu_t[C];
        read_shared(bt, b + t * kWidth + lane.state_lane * S);
        read_shared(dt_t, dt + t * kTile + lane.channel);
        read_shared(dtu_t, dtu + t * kTile + lane.channel);
        const bool reset = (resets >> j & 1) != 0;
#pragma unroll
        for (int i = 0; i < C; ++i) {
#pragma unroll
          for (int k = 0; k < S; ++k) {
            const float before = reset ? 0.0f : h[i][k];
            h[i][k] = fmaf(dtu_t[i], bt[k], exp2_approx(dt_t[i] * a2[i][k]) * before);
          }
        }
      }
    }
    for (int segment = segments - 1; segment >= first_segment; --segment) {
      const Index first_step = first + segment * K;
      const unsigned resets =
          (segment < kSegments / 2 ? resets_low : resets_high) >> segment % (kSegments / 2) * K;
      // --- prologue: the gradient of y ---
#pragma unroll
      for (int t = threadIdx.x / kTile; t < K; t += kStride) {
        const bool real = real_channel && first_step + t >= span.from && first_step + t < span.to;
        const Index at = (row + first_step + t) * in.inner + channel;
        float gradient = 0.0f;
        if (real) {
          gradient = to_float(grad.dout[at]) * silu(to_float(in.z[at]));
          d_sum = fmaf(gradient, to_float(in.u[at]), d_sum);
        }
        dy[t * kTile + my_channel] = gradient;
      }
#pragma unroll
      for (int i = 0; i < C; ++i) {
#pragma unroll
        for (int k = 0; k < S; ++k)
          h[i][k] = states[(segment * kTile + lane.channel + i) * kWidth + lane.state(k)];
      }
      __syncthreads();
      // --- forward, keeping a = 2^(dt A2) and p = a h ---
      float a[K][C][S], p[K][C][S];
#pragma unroll
      for (int j = 0; j < K; ++j) {
        const int t = segment * K + j;
        float bt[S], dt_t[C], dtu_t[C];
        read_shared(bt, b + t * kWidth + lane.state_lane * S);
        read_shared(dt_t, dt + t * kTile + lane.channel);
        read_shared(dtu_t, dtu + t * kTile + lane.channel);
        if ((resets >> j & 1) != 0) {  // set, not multiplied: a NaN stays in its document
#pragma unroll
          for (int i = 0; i < C; ++i) {
#pragma unroll
            for (int k = 0; k < S; ++k) h[i][k] = 0.0f;
          }
        }
#pragma unroll
        for (int i = 0; i < C; ++i) {
#pragma unroll
          for (int k = 0; k < S; ++k) {
            a[j][i][k] = exp2_approx(dt_t[i] * a2[i][k]);
            p[j][i][k] = a[j][i][k] * h[i][k];
            h[i][k] = fmaf(dtu_t[i], bt[k], p[j][i][k]);
          }
        }
      }
      // --- back ---
      float da_part[C][S] = {};
#pragma unroll
      for (int j = K - 1; j >= 0; --j) {
        const int t = segment * K + j;
        float bt[S], ct[S], dt_t[C], dtu_t[C], dy_t[C];
        read_shared(bt, b + t * kWidth + lane.state_lane * S);
        read_shared(ct, c + t * kWidth + lane.state_lane * S);
        read_shared(dt_t, dt + t * kTile + lane.channel);
        read_shared(dtu_t, dtu + t * kTile + lane.channel);
        read_shared(dy_t, dy + j * kTile + lane.channel);
        float dbc[2 * S] = {};  // towards B, then C
        float sum_b[C], sum_a[C];
#pragma unroll
        for (int i = 0; i < C; ++i) {
          sum_b[i] = 0.0f;
          sum_a[i] = 0.0f;
#pragma unroll
          for (int k = 0; k < S; ++k) {
            const float gk = fmaf(dy_t[i], ct[k], g[i][k]);
            const float gp = gk * p[j][i][k];
            const float hk = fmaf(dtu_t[i], bt[k], p[j][i][k]);
            sum_b[i] = fmaf(gk, bt[k], sum_b[i]);
            sum_a[i] = fmaf(gp, a2[i][k], sum_a[i]);
            da_part[i][k] = fmaf(dt_t[i], gp, da_part[i][k]);
            dbc[k] = fmaf(gk, dtu_t[i], dbc[k]);
            dbc[S + k] = fmaf(dy_t[i], hk, dbc[S + k]);
            g[i][k] = gk * a[j][i][k];
          }
        }
        if ((resets >> j & 1) != 0) {
#pragma unroll
          for (int i = 0; i < C; ++i) {
#pragma unroll
            for (int k = 0; k < S; ++k) g[i][k] = 0.0f;
          }
        }
        const int at = scatter_over_channels(dbc, channel_lane);
        // A lane has sums [at, at + kMine) of its state lane's 2 * S; of lanes with the same, the
        // first writes.
        constexpr int kMine = 2 * S > kChannelLanes ? 2 * S / kChannelLanes : 1;
        const bool writes = 2 * S >= kChannelLanes || channel_lane < 2 * S;
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          if (!writes) break;
          const int which = (at + i) / S, k = (at + i) % S;
          bc[((warp * K + j) * 2 + which) * kWidth + lane.state(k)] = dbc[i];
        }
        // Over the 4 state lanes: two sums a channel.
        if constexpr (C == 2) {
          const int q = lane.state_lane;
          const float low = ((q & 1) ? sum_b[1] : sum_b[0]) +
                            __shfl_xor_sync(kAllLanes, (q & 1) ? sum_b[0] : sum_b[1], 1);
          const float high = ((q & 1) ? sum_a[1] : sum_a[0]) +
                             __shfl_xor_sync(kAllLanes, (q & 1) ? sum_a[0] : sum_a[1], 1);
          const float sum =
              ((q & 2) ? high : low) + __shfl_xor_sync(kAllLanes, (q & 2) ? low : high, 2);
          ((q & 2) ? ga : gb)[j * kTile + lane.channel + (q & 1)] = sum;
        } else {
          static_assert(C == 1);
          const int q = lane.state_lane;
          float sum = ((q & 1) ? sum_a[0] : sum_b[0]) +
                      __shfl_xor_sync(kAllLanes, (q & 1) ? sum_b[0] : sum_a[0], 1);
          sum += __shfl_xor_sync(kAllLanes, sum, 2);
          if (q < 2) ((q & 1) ? ga : gb)[j * kTile + lane.channel] = sum;
        }
      }
      // Summed by segments, then over them: half the rounding of one long chain.
#pragma unroll
      for (int i = 0; i < C; ++i) {
#pragma unroll
        for (int k = 0; k < S; ++k)
          da[(lane.channel + i) * kWidth + lane.state(k)] += da_part[i][k];
      }
      __syncthreads();
      // --- epilogue ---
#pragma unroll
      for (int t = threadIdx.x / kTile; t < K; t += kStride) {
        if (!real_channel || first_step + t < span.from || first_step + t >= span.to) continue;
        const Index at = (row + first_step + t) * in.inner + channel;
        const int here = t * kTile + my_channel;
        const float u = to_float(in.u[at]), z = to_float(in.z[at]), y = to_float(grad.y[at]);
        const float gate = sigmoid(z), dout = to_float(grad.dout[at]);
        const float dstep = fmaf(u, gb[here], ga[here] * (1.0f / kLog2E));
        const float ddelta = dstep * sigmoid(to_float(in.delta[at]) + bias);
        bias_sum += ddelta;
        grad.du[at] = from_float<T>(
            fmaf(skip, dy[here], dt[(segment * K + t) * kTile + my_channel] * gb[here]));
        grad.ddelta[at] = from_float<T>(ddelta);
        grad.dz[at] = from_float<T>(dout * y * silu_derivative(z, gate));
        grad.out[at] = from_float<T>(y * (z * gate));  // may be dout: read above
      }
      for (int i = threadIdx.x; i < K * 2 * kWidth; i += kScanThreads) {
        const int t = i / (2 * kWidth), which = i / kWidth % 2, n = i % kWidth;
        if (first_step + t < span.from || first_step + t >= span.to || n >= in.state) continue;
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < kScanWarps; ++w) sum += bc[w * K * 2 * kWidth + i];
        const Index token =
            (static_cast<Index>(blockIdx.x) * gridDim.y + batch) * in.seq + first_step + t;
        parts.bc[(token * 2 + which) * in.state + n] = sum;
      }
      // No barrier: what the next prologue writes, other threads last read before the epilogue; and
      // gb, ga and bc, which they may still read, are written after that prologue's barrier.
    }
  }
  if (grad.dh0 != nullptr && blockIdx.z == 0) store_states(grad.dh0, h_at, g, in, lane);
  float total[C][S];
#pragma unroll
  for (int i = 0; i < C; ++i) {
#pragma unroll
    for (int k = 0; k < S; ++k) total[i][k] = da[(lane.channel + i) * kWidth + lane.state(k)];
  }
  const Index part = batch * gridDim.z + blockIdx.z;
  store_states(parts.da, (part * in.inner + lane.first_channel) * in.state, total, in, lane);
  // Threads of one channel, in order. Each overwrites what it alone read in the epilogue.
  dy[threadIdx.x] = d_sum;
  gb[threadIdx.x] = bias_sum;
  __syncthreads();
  if (threadIdx.x >= kTile || !real_channel) return;
  float d_total = 0.0f, bias_total = 0.0f;
#pragma unroll
  for (int i = 0; i < kStride; ++i) {
    d_total += dy[i * kTile + my_channel];
    bias_total += gb[i * kTile + my_channel];
  }
  parts.d[part * in.inner + channel] = d_total;
  parts.bias[part * in.inner + channel] = bias_total;
}

/// The main kernel, and how many channels its tiles have. One file instantiates it for each number
/// of states a lane.
template <int S>
void scan_backward(Stream&, const BackwardParts&, const SelectiveScanGradients&, Tensor out,
                   Tensor dout, Tensor dh_last, const SelectiveScanSaved&,
                   const SelectiveScanInputs&, const ScanPlan&, const ScanParts&, int channels);

template <int S, int C>
void launch_scan_backward(Stream& stream, const BackwardParts& parts,
                          const SelectiveScanGradients& g, Tensor out, Tensor dout, Tensor dh_last,
                          const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                          const ScanPlan& plan, const ScanParts& time) {
  const std::int64_t channels = plan.end_channel() - plan.range.begin;
  visit_float(in.u.dtype(), [&]<class T>(T) {
    launch<kScanThreads>(
        stream, scan_backward_kernel<T, S, C>,
        {ceil_div(channels, kTileChannels<C>), plan.batch, time.count},
        BackwardShared<S, C>::kBytes,
        BackwardArrays<T>{g.du.ptr<T>(), g.ddelta.ptr<T>(), g.dz.ptr<T>(), out.ptr<T>(),
                          dout.ptr<T>(), saved.y.ptr<T>(), g.dh0.ptr<float>(), dh_last.ptr<float>(),
                          static_cast<const float*>(saved.states.raw())},
        parts, ScanArrays<T>::of(in, plan, time));
  });
}

}  // namespace jamba::cuda

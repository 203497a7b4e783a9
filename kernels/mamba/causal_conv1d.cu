// Bytes bound: a thread walks along time with its channels' last taps in registers, so that x is
// read once (forward) or 1 + (taps - 1) / kSteps times (backward).

#include "kernels/mamba/causal_conv1d.h"

#include "kernels/core/backend.h"
#include "kernels/core/cuda/add_parts.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kSteps = 64;  // of one thread

/// Raw pointers of one call.
template <class T, class W>
struct Conv {
  const T* x;
  const T* history;
  const W* w;
  const W* bias;
  const std::int32_t* doc_start;
  Index seq, inner;
  int taps;
};

/// N channels of a thread, with weights for kTaps taps; if there are fewer, the first do not exist.
template <class T, class W, int kTaps, int N>
struct Channels {
  const Conv<T, W>& conv;
  Index batch, channel;
  float w[kTaps][N], bias[N];
  float window[kTaps][N];  // x of steps t - kTaps + 1 .. t

  __device__ __forceinline__ Channels(const Conv<T, W>& c, Index b, Index d)
      : conv(c), batch(b), channel(d) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      bias[i] = c.bias != nullptr ? to_float(c.bias[d + i]) : 0.0f;
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        const int tap = j - (kTaps - c.taps);
        w[j][i] = tap >= 0 ? to_float(c.w[(d + i) * c.taps + tap]) : 0.0f;
      }
    }
  }

  /// x of a step, which may lie before the first; 0 where there is nothing.
  __device__ __forceinline__ void load(float (&out)[N], Index step) const {
    if (step >= 0) {
      load_pack(out, conv.x + (batch * conv.seq + step) * conv.inner + channel);
    } else if (conv.history != nullptr && step >= 1 - conv.taps) {
      load_pack(out, conv.history + (batch * (conv.taps - 1) + conv.taps - 1 + step) * conv.inner +
                         channel);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) out[i] = 0.0f;
    }
  }
  /// The window of the step before `step`.
  __device__ __forceinline__ void begin(Index step) {
#pragma unroll
    for (int j = 1; j < kTaps; ++j) load(window[j], step - kTaps + j);
  }
  __device__ __forceinline__ void advance(Index step) {
#pragma unroll
    for (int j = 0; j + 1 < kTaps; ++j) {
#pragma unroll
      for (int i = 0; i < N; ++i) window[j][i] = window[j + 1][i];
    }
    load(window[kTaps - 1], step);
  }
  /// The first entry of the window that `step` may read: of its document, and of a tap.
  __device__ __forceinline__ int first_visible(Index step) const {
    Index first = step - (conv.taps - 1);
    if (conv.doc_start != nullptr) {
      const Index start = conv.doc_start[batch * conv.seq + step];
      first = first < start ? start : first;
    }
    return static_cast<int>(first - (step - kTaps + 1));
  }
  __device__ __forceinline__ void pre_activation(float (&out)[N], int first) const {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      out[i] = bias[i];
      // Chosen, not multiplied by 0: a NaN of another document must stay there.
#pragma unroll
      for (int j = 0; j < kTaps; ++j)
        out[i] = j >= first ? fmaf(w[j][i], window[j][i], out[i]) : out[i];
    }
  }
};

template <class T, class W, int kTaps, int N>
__global__ void __launch_bounds__(kThreads) forward_kernel(T* y, Conv<T, W> conv) {
  const Index channel = (static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (channel >= conv.inner) return;
  const Index begin = static_cast<Index>(blockIdx.y) * kSteps;
  const Index end = begin + kSteps < conv.seq ? begin + kSteps : conv.seq;
  Channels<T, W, kTaps, N> c(conv, blockIdx.z, channel);
  c.begin(begin);
  for (Index t = begin; t < end; ++t) {
    c.advance(t);
    float out[N];
    c.pre_activation(out, c.first_visible(t));
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = silu(out[i]);
    store_pack(y + (c.batch * conv.seq + t) * conv.inner + channel, out);
  }
}

/// Gradients of inputs [begin, end), and for the first block of the history. They gather what up to
/// kTaps - 1 later steps give, whose pre-activations are computed twice.
/// parts [batch * time blocks, taps + 1, inner]: the block's own steps' share of dw, then of dbias.
template <class T, class W, int kTaps, int N>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(T* dx, T* dhistory, float* parts, const T* dy, Conv<T, W> conv) {
  const Index channel = (static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (channel >= conv.inner) return;
  const Index begin = static_cast<Index>(blockIdx.y) * kSteps;
  const Index end = begin + kSteps < conv.seq ? begin + kSteps : conv.seq;
  Channels<T, W, kTaps, N> c(conv, blockIdx.z, channel);
  c.begin(begin);
  float dw[kTaps][N] = {}, dbias[N] = {};
  float gathered[kTaps][N] = {};  // of inputs t - kTaps + 1 .. t, so far
  for (Index t = begin; t < end + kTaps - 1; ++t) {
    float d[N] = {};
    int first = kTaps;
    if (t < conv.seq) {
      c.advance(t);
      first = c.first_visible(t);
      float pre[N];
      c.pre_activation(pre, first);
      load_pack(d, dy + (c.batch * conv.seq + t) * conv.inner + channel);
#pragma unroll
      for (int i = 0; i < N; ++i) d[i] *= silu_derivative(pre[i], sigmoid(pre[i]));
    }
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float past = j + 1 < kTaps ? gathered[j + 1][i] : 0.0f;
        gathered[j][i] = j >= first ? fmaf(c.w[j][i], d[i], past) : past;
        if (j >= first && t < end) dw[j][i] = fmaf(d[i], c.window[j][i], dw[j][i]);
      }
    }
    if (t < end) {
#pragma unroll
      for (int i = 0; i < N; ++i) dbias[i] += d[i];
    }
    const Index done = t - kTaps + 1;  // the input that no later step reads
    if (done >= begin && done < end) {
      store_pack(dx + (c.batch * conv.seq + done) * conv.inner + channel, gathered[0]);
    } else if (dhistory != nullptr && begin == 0 && done < 0 && done >= 1 - conv.taps) {
      store_pack(
          dhistory + (c.batch * (conv.taps - 1) + conv.taps - 1 + done) * conv.inner + channel,
          gathered[0]);
    }
  }
  float* const part = parts + (static_cast<Index>(blockIdx.z) * gridDim.y + blockIdx.y) *
                                  (conv.taps + 1) * conv.inner;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    part[conv.taps * conv.inner + channel + i] = dbias[i];
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      const int tap = j - (kTaps - conv.taps);
      if (tap >= 0) part[tap * conv.inner + channel + i] = dw[j][i];
    }
  }
}

/// dw [inner, taps] += the sum of parts, in order; dbias likewise.
__global__ void __launch_bounds__(kThreads)
    add_weight_gradients_kernel(float* dw, float* dbias, const float* parts, Index num_parts,
                                Index inner, int taps) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= inner * (taps + 1)) return;
  const Index tap = i / inner, channel = i % inner;
  float* const to = tap < taps ? dw + channel * taps + tap : dbias + channel;
  if (tap == taps && dbias == nullptr) return;
  float sum = 0.0f;
  for (Index p = 0; p < num_parts; ++p) sum += parts[p * (taps + 1) * inner + i];
  *to += sum;
}

template <class T, class W>
Conv<T, W> make_conv(const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& doc_start,
                     const Tensor& history) {
  return {x.ptr<T>(),
          history.ptr<T>(),
          w.ptr<W>(),
          bias.ptr<W>(),
          doc_start.ptr<std::int32_t>(),
          x.dim(1),
          x.dim(2),
          static_cast<int>(w.dim(1))};
}

/// Calls f with the taps that the kernel is made for, of at least so many.
template <class F>
void visit_taps(std::int64_t taps, F&& f) {
  constexpr int kUsual = 4, kMost = 8;
  if (taps <= kUsual) {
    f(std::integral_constant<int, kUsual>{});
  } else {
    f(std::integral_constant<int, kMost>{});
  }
}

Grid grid_of(const Tensor& x, int channels_a_thread) {
  return {ceil_div(ceil_div(x.dim(2), channels_a_thread), kThreads), ceil_div(x.dim(1), kSteps),
          x.dim(0)};
}

}  // namespace

void causal_conv1d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, Tensor bias,
                           Tensor doc_start, Tensor history) {
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_float(w.dtype(), [&]<class W>(W) {
      const auto conv = make_conv<T, W>(x, w, bias, doc_start, history);
      visit_taps(conv.taps, [&]<int kTaps>(std::integral_constant<int, kTaps>) {
        visit_pack<2>(
            x.dim(2),
            [&]<int N>(std::integral_constant<int, N>) {
              launch<kThreads>(stream, forward_kernel<T, W, kTaps, N>, grid_of(x, N), 0, y.ptr<T>(),
                               conv);
            },
            x.ptr<T>(), y.ptr<T>(), history.ptr<T>());
      });
    });
  });
}

void causal_conv1d_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw, Tensor dbias,
                            Tensor dhistory, Tensor dy, Tensor x, Tensor w, Tensor bias,
                            Tensor doc_start, Tensor history) {
  const std::int64_t inner = x.dim(2), taps = w.dim(1);
  const std::int64_t num_parts = x.dim(0) * ceil_div(x.dim(1), kSteps);
  if (dhistory.present() && num_parts == 0) {
    fill_bytes(stream, dhistory.raw(), 0, dhistory.bytes());
    return;
  }
  const ArenaScope scope(scratch);
  float* const parts = scratch.allocate(DType::f32, {num_parts, taps + 1, inner}).ptr<float>();
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_float(w.dtype(), [&]<class W>(W) {
      const auto conv = make_conv<T, W>(x, w, bias, doc_start, history);
      visit_taps(taps, [&]<int kTaps>(std::integral_constant<int, kTaps>) {
        visit_pack<2>(
            inner,
            [&]<int N>(std::integral_constant<int, N>) {
              launch<kThreads>(stream, backward_kernel<T, W, kTaps, N>, grid_of(x, N), 0,
                               dx.ptr<T>(), dhistory.ptr<T>(), parts, dy.ptr<T>(), conv);
            },
            dx.ptr<T>(), dhistory.ptr<T>(), dy.ptr<T>(), x.ptr<T>(), history.ptr<T>());
      });
    });
  });
  launch<kThreads>(stream, add_weight_gradients_kernel, {ceil_div(inner * (taps + 1), kThreads)}, 0,
                   dw.ptr<float>(), dbias.ptr<float>(), parts, num_parts, inner,
                   static_cast<int>(taps));
}

}  // namespace jamba::cuda

#include "kernels/mamba/causal_conv1d.h"

#include <algorithm>

#include "kernels/core/parallel.h"
#include "kernels/mamba/causal_conv1d_plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mamba/causal_conv1d_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"
#include "kernels/core/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Raw pointers of one call. T stores activations.
template <class T>
struct Conv {
  const T* x;
  const T* history;
  const std::int32_t* doc_start;
  std::int64_t seq, inner, taps;

  /// The first step that step t may read.
  std::int64_t first_visible(std::int64_t b, std::int64_t t) const {
    const std::int64_t reach = t - (taps - 1);
    if (doc_start == nullptr) return reach;
    return std::max<std::int64_t>(reach, doc_start[b * seq + t]);
  }
  /// Input row s >= -(taps - 1) at channel d0; null where it counts as zero.
  const T* row(std::int64_t b, std::int64_t s, std::int64_t d0) const {
    if (s >= 0) return x + (b * seq + s) * inner + d0;
    if (history == nullptr) return nullptr;
    return history + (b * (taps - 1) + taps - 1 + s) * inner + d0;
  }
};

/// Weights and bias of one panel, taps outermost, in float32.
struct PanelWeights {
  float w[kMaxConvTaps][kConvChannels];
  float bias[kConvChannels];
};

template <class W>
void read_weights(PanelWeights& out, const W* w, const W* bias, std::int64_t taps,
                  const ConvPiece& p) {
  for (std::int64_t i = 0; i < p.width; ++i) {
    for (std::int64_t j = 0; j < taps; ++j) {
      out.w[j][i] = static_cast<float>(w[(p.d0 + i) * taps + j]);
    }
    out.bias[i] = bias == nullptr ? 0.0f : static_cast<float>(bias[p.d0 + i]);
  }
}

/// The rows that step t reads, oldest first; rows outside its document are `zeros`.
template <class T>
void find_rows(const T** rows, const Conv<T>& conv, const ConvPiece& p, std::int64_t t,
               const T* zeros) {
  const std::int64_t first = conv.first_visible(p.b, t);
  for (std::int64_t j = 0; j < conv.taps; ++j) {
    const std::int64_t s = t - (conv.taps - 1) + j;
    const T* row = s < first ? nullptr : conv.row(p.b, s, p.d0);
    rows[j] = row == nullptr ? zeros : row;
  }
}

template <class T>
HWY_INLINE VF pre_activation(const PanelWeights& weights, const T* const* rows, std::int64_t taps,
                             std::int64_t i, std::int64_t n) {
  VF sum = load_n(weights.bias + i, n);
  for (std::int64_t j = 0; j < taps; ++j) {
    sum = hn::MulAdd(load_n(weights.w[j] + i, n), load_n(rows[j] + i, n), sum);
  }
  return sum;
}

template <class T, class W>
void forward_piece(T* y, const Conv<T>& conv, const W* w, const W* bias, const ConvPiece& p) {
  PanelWeights weights;
  read_weights(weights, w, bias, conv.taps, p);
  const T zeros[kConvChannels] = {};
  const T* rows[kMaxConvTaps];
  for (std::int64_t t = p.t0; t < p.t1; ++t) {
    find_rows(rows, conv, p, t, zeros);
    T* out = y + (p.b * conv.seq + t) * conv.inner + p.d0;
    for_lanes(p.width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
      store_n(silu(pre_activation(weights, rows, conv.taps, i, n)), out + i, n);
    });
  }
}

/// Gradients of the pre-activation of steps [t0, t0 + kConvSteps + taps - 1) of one panel.
struct PanelGradient {
  float row[kConvSteps + kMaxConvTaps - 1][kConvChannels];
};

/// Where the piece adds its share of dw and dbias: taps + 1 rows of `inner`, bias last.
struct WeightPartial {
  float* data;
  std::int64_t inner;
  float* row(std::int64_t j) const { return data + j * inner; }
};

/// Fills `g` and sums dw and dbias over the piece's own steps.
template <class T>
void backward_pre_activation(PanelGradient& g, const WeightPartial& partial, const T* dy,
                             const PanelWeights& weights, const Conv<T>& conv, const ConvPiece& p) {
  const T zeros[kConvChannels] = {};
  const T* rows[kMaxConvTaps];
  for (std::int64_t j = 0; j <= conv.taps; ++j) {
    std::fill_n(partial.row(j) + p.d0, p.width, 0.0f);
  }
  const std::int64_t end = std::min(conv.seq, p.t1 + conv.taps - 1);
  for (std::int64_t t = p.t0; t < end; ++t) {
    find_rows(rows, conv, p, t, zeros);
    const T* dout = dy + (p.b * conv.seq + t) * conv.inner + p.d0;
    float* gradient = g.row[t - p.t0];
    for_lanes(p.width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
      const VF pre = pre_activation(weights, rows, conv.taps, i, n);
      const VF d = hn::Mul(load_n(dout + i, n), silu_derivative(pre, sigmoid(pre)));
      store_n(d, gradient + i, n);
      if (t >= p.t1) return;
      for (std::int64_t j = 0; j < conv.taps; ++j) {
        float* sum = partial.row(j) + p.d0 + i;
        store_n(hn::MulAdd(d, load_n(rows[j] + i, n), load_n(sum, n)), sum, n);
      }
      float* sum = partial.row(conv.taps) + p.d0 + i;
      store_n(hn::Add(load_n(sum, n), d), sum, n);
    });
  }
}

/// The gradient that input step s (negative: history) of the panel gathers from the steps after it.
template <class T>
void backward_input(T* dx, const PanelGradient& g, const PanelWeights& weights, const Conv<T>& conv,
                    const ConvPiece& p, std::int64_t s) {
  const float zeros[kConvChannels] = {};
  const float* rows[kMaxConvTaps];
  for (std::int64_t j = 0; j < conv.taps; ++j) {
    const std::int64_t t = s + conv.taps - 1 - j;
    const bool reads = t >= 0 && t < conv.seq && s >= conv.first_visible(p.b, t);
    rows[j] = reads ? g.row[t - p.t0] : zeros;
  }
  for_lanes(p.width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    VF sum = hn::Zero(DF());
    for (std::int64_t j = 0; j < conv.taps; ++j) {
      sum = hn::MulAdd(load_n(weights.w[j] + i, n), load_n(rows[j] + i, n), sum);
    }
    store_n(sum, dx + i, n);
  });
}

template <class T, class W>
void backward_piece(T* dx, T* dhistory, const WeightPartial& partial, const T* dy,
                    const Conv<T>& conv, const W* w, const W* bias, const ConvPiece& p) {
  PanelWeights weights;
  read_weights(weights, w, bias, conv.taps, p);
  PanelGradient g;
  backward_pre_activation(g, partial, dy, weights, conv, p);
  for (std::int64_t s = p.t0; s < p.t1; ++s) {
    backward_input(dx + (p.b * conv.seq + s) * conv.inner + p.d0, g, weights, conv, p, s);
  }
  if (dhistory == nullptr || p.t0 != 0) return;
  for (std::int64_t s = 1 - conv.taps; s < 0; ++s) {
    T* row = dhistory + (p.b * (conv.taps - 1) + conv.taps - 1 + s) * conv.inner + p.d0;
    backward_input(row, g, weights, conv, p, s);
  }
}

template <class T>
Conv<T> make_conv(const Tensor& x, const Tensor& w, const Tensor& doc_start,
                  const Tensor& history) {
  return {x.ptr<T>(), history.ptr<T>(), doc_start.ptr<std::int32_t>(),
          x.dim(1),   x.dim(2),         w.dim(1)};
}

void forward(Stream& stream, Tensor y, Tensor x, Tensor w, Tensor bias, Tensor doc_start,
             Tensor history) {
  const ConvPlan plan(x.dim(0), x.dim(1), x.dim(2));
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_float(w.dtype(), [&]<class W>(W) {
      const auto conv = make_conv<T>(x, w, doc_start, history);
      parallel_blocks(stream, plan.num_pieces, 1, [&](std::int64_t i, std::int64_t) {
        forward_piece(y.ptr<T>(), conv, w.ptr<W>(), bias.ptr<W>(), plan.piece(i));
      });
    });
  });
}

/// dw[d, j] += sum of the partial rows in order; the transpose is small.
void add_weight_gradients(Stream& stream, Tensor dw, Tensor dbias, const float* partials,
                          const ConvPlan& plan, std::int64_t taps) {
  parallel_blocks(stream, plan.inner, kConvChannels, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = 0; j <= taps; ++j) {
      if (j == taps && dbias.absent()) continue;
      float* out = j == taps ? dbias.ptr<float>() : dw.ptr<float>() + j;
      const std::int64_t stride = j == taps ? 1 : taps;
      float sum[kConvChannels] = {};
      for (std::int64_t r = 0; r < plan.rows; ++r) {
        const float* row = partials + (r * (taps + 1) + j) * plan.inner;
        for (std::int64_t d = begin; d < end; ++d) sum[d - begin] += row[d];
      }
      for (std::int64_t d = begin; d < end; ++d) out[d * stride] += sum[d - begin];
    }
  });
}

void clear(Tensor t) {
  if (t.bytes() > 0) std::fill_n(static_cast<char*>(t.raw()), t.bytes(), char{0});
}

void backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw, Tensor dbias, Tensor dhistory,
              Tensor dy, Tensor x, Tensor w, Tensor bias, Tensor doc_start, Tensor history) {
  const ConvPlan plan(x.dim(0), x.dim(1), x.dim(2));
  if (plan.seq == 0) return clear(dhistory);
  const std::int64_t taps = w.dim(1);
  ArenaScope scope(scratch);
  float* partials = scratch.allocate(DType::f32, {plan.rows, taps + 1, plan.inner}).ptr<float>();
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_float(w.dtype(), [&]<class W>(W) {
      const auto conv = make_conv<T>(x, w, doc_start, history);
      parallel_blocks(stream, plan.num_pieces, 1, [&](std::int64_t i, std::int64_t) {
        const WeightPartial partial{partials + i / plan.panels * (taps + 1) * plan.inner,
                                    plan.inner};
        backward_piece(dx.ptr<T>(), dhistory.ptr<T>(), partial, dy.ptr<T>(), conv, w.ptr<W>(),
                       bias.ptr<W>(), plan.piece(i));
      });
    });
  });
  add_weight_gradients(stream, dw, dbias, partials, plan, taps);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

void causal_conv1d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, Tensor bias,
                           Tensor doc_start, Tensor history) {
  HWY_DYNAMIC_DISPATCH(forward)(stream, y, x, w, bias, doc_start, history);
}

void causal_conv1d_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw, Tensor dbias,
                            Tensor dhistory, Tensor dy, Tensor x, Tensor w, Tensor bias,
                            Tensor doc_start, Tensor history) {
  HWY_DYNAMIC_DISPATCH(backward)
  (stream, scratch, dx, dw, dbias, dhistory, dy, x, w, bias, doc_start, history);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

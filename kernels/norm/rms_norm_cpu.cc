#include "kernels/norm/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm/rms_norm_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Tokens that one dw partial sums; also the unit of parallel work.
constexpr std::int64_t kTokenBlock = 32;

template <class T, class W>
void forward_row(T* y, T* sum, float* rstd, const T* x, const T* residual, const W* w,
                 std::int64_t model, float eps) {
  VF squares = hn::Zero(DF());
  const T* source = x;
  if (residual != nullptr) {
    for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
      store_n(hn::Add(load_n(x + i, n), load_n(residual + i, n)), sum + i, n);
    });
    source = sum;
  }
  for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF v = load_n(source + i, n);
    squares = hn::MulAdd(v, v, squares);
  });
  *rstd = 1.0f / std::sqrt(sum_lanes(squares) / static_cast<float>(model) + eps);
  const VF factor = hn::Set(DF(), *rstd);
  for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    T rounded[HWY_MAX_BYTES / 4];
    store_n(hn::Mul(load_n(source + i, n), factor), rounded, n);  // Hugging Face casts here
    store_n(hn::Mul(load_n(rounded, n), load_n(w + i, n)), y + i, n);
  });
}

/// dx = d_residual + rstd * (dy w - x * rstd^2 * mean(dy w x));  partial += dy * x * rstd.
template <class T, class W>
void backward_row(T* dx, float* partial, const T* dy, const T* d_residual, const T* x, float rstd,
                  const W* w, std::int64_t model) {
  VF dots = hn::Zero(DF());
  for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF g = load_n(dy + i, n), v = load_n(x + i, n);
    dots = hn::MulAdd(hn::Mul(g, load_n(w + i, n)), v, dots);
  });
  const float mean_dot = sum_lanes(dots) / static_cast<float>(model);
  const VF r = hn::Set(DF(), rstd);
  const VF pull = hn::Set(DF(), rstd * rstd * mean_dot);
  for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF g = load_n(dy + i, n), v = load_n(x + i, n);
    const VF dw = hn::MulAdd(hn::Mul(g, v), r, load_n(partial + i, n));
    store_n(dw, partial + i, n);
    VF d = hn::Mul(r, hn::NegMulAdd(pull, v, hn::Mul(g, load_n(w + i, n))));
    if (d_residual != nullptr) d = hn::Add(d, load_n(d_residual + i, n));
    store_n(d, dx + i, n);
  });
}

void forward(Stream& stream, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor residual, Tensor w,
             float eps) {
  const std::int64_t model = x.cols();
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_float(w.dtype(), [&]<class W>(W) {
      parallel_blocks(stream, x.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
          const std::int64_t at = t * model;
          forward_row(y.ptr<T>() + at, sum.present() ? sum.ptr<T>() + at : nullptr,
                      rstd.ptr<float>() + t, x.ptr<T>() + at,
                      residual.present() ? residual.ptr<T>() + at : nullptr, w.ptr<W>(), model,
                      eps);
        }
      });
    });
  });
}

void backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw, Tensor dy, Tensor d_residual,
              Tensor x, Tensor rstd, Tensor w) {
  const std::int64_t tokens = x.rows(), model = x.cols();
  const std::int64_t num_blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
  ArenaScope scope(scratch);
  float* partials = scratch.allocate(DType::f32, {num_blocks, model}).ptr<float>();
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_float(w.dtype(), [&]<class W>(W) {
      parallel_blocks(stream, tokens, kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
        float* partial = partials + begin / kTokenBlock * model;
        std::fill(partial, partial + model, 0.0f);
        for (std::int64_t t = begin; t < end; ++t) {
          const std::int64_t at = t * model;
          backward_row(dx.ptr<T>() + at, partial, dy.ptr<T>() + at,
                       d_residual.present() ? d_residual.ptr<T>() + at : nullptr, x.ptr<T>() + at,
                       rstd.ptr<float>()[t], w.ptr<W>(), model);
        }
      });
    });
  });
  float* total = dw.ptr<float>();
  for (std::int64_t b = 0; b < num_blocks; ++b) {
    for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
      store_n(hn::Add(load_n(total + i, n), load_n(partials + b * model + i, n)), total + i, n);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

void rms_norm_forward(Stream& stream, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor residual,
                      Tensor w, float eps) {
  HWY_DYNAMIC_DISPATCH(forward)(stream, y, sum, rstd, x, residual, w, eps);
}

void rms_norm_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw, Tensor dy,
                       Tensor d_residual, Tensor x, Tensor rstd, Tensor w) {
  HWY_DYNAMIC_DISPATCH(backward)(stream, scratch, dx, dw, dy, d_residual, x, rstd, w);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

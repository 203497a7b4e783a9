#include "kernels/mamba/inner_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mamba/inner_norm_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Tokens that one weight-gradient partial sums; also the unit of parallel work.
constexpr std::int64_t kTokenBlock = 64;

template <class T>
void copy_row(T* y, const float* x, std::int64_t width) {
  for_lanes(width,
            [&](std::int64_t i, std::int64_t n) HWY_ATTR { store_n(load_n(x + i, n), y + i, n); });
}

template <class T, class W>
void norm_row(T* y, float* rstd, const float* x, const W* w, std::int64_t width, float eps) {
  VF squares = hn::Zero(DF());
  for_lanes(width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF v = load_n(x + i, n);
    squares = hn::MulAdd(v, v, squares);
  });
  *rstd = 1.0f / std::sqrt(sum_lanes(squares) / static_cast<float>(width) + eps);
  const VF factor = hn::Set(DF(), *rstd);
  for_lanes(width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    store_n(hn::Mul(hn::Mul(load_n(x + i, n), factor), load_n(w + i, n)), y + i, n);
  });
}

/// dx = rstd * (dy w - x * rstd^2 * mean(dy w x));  partial += dy * x * rstd.
template <class T, class W>
void backward_row(float* dx, float* partial, const T* dy, const float* x, float rstd, const W* w,
                  std::int64_t width) {
  VF dots = hn::Zero(DF());
  for_lanes(width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF g = load_n(dy + i, n);
    dots = hn::MulAdd(hn::Mul(g, load_n(w + i, n)), load_n(x + i, n), dots);
  });
  const VF r = hn::Set(DF(), rstd);
  const VF pull = hn::Set(DF(), rstd * rstd * sum_lanes(dots) / static_cast<float>(width));
  for_lanes(width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF g = load_n(dy + i, n), v = load_n(x + i, n);
    store_n(hn::MulAdd(hn::Mul(g, v), r, load_n(partial + i, n)), partial + i, n);
    store_n(hn::Mul(r, hn::NegMulAdd(pull, v, hn::Mul(g, load_n(w + i, n)))), dx + i, n);
  });
}

void forward(Stream& stream, Tensor dt, Tensor b, Tensor c, Tensor rstd, Tensor x, Tensor w_dt,
             Tensor w_b, Tensor w_c, float eps) {
  const std::int64_t width = dt.dim(1), state = b.dim(1), stride = x.dim(1);
  const DType weight_dtype = w_dt.present() ? w_dt.dtype() : DType::f32;
  visit_float(dt.dtype(), [&]<class T>(T) {
    visit_float(weight_dtype, [&]<class W>(W) {
      parallel_blocks(stream, x.dim(0), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
          T* dt_row = dt.ptr<T>() + t * width;
          float *b_row = b.ptr<float>() + t * state, *c_row = c.ptr<float>() + t * state;
          const float* row = x.ptr<float>() + t * stride;
          if (w_dt.absent()) {
            copy_row(dt_row, row, width);
            copy_row(b_row, row + width, state);
            copy_row(c_row, row + width + state, state);
            continue;
          }
          float* r = rstd.ptr<float>() + t * 3;
          norm_row(dt_row, r, row, w_dt.ptr<W>(), width, eps);
          norm_row(b_row, r + 1, row + width, w_b.ptr<W>(), state, eps);
          norm_row(c_row, r + 2, row + width + state, w_c.ptr<W>(), state, eps);
        }
      });
    });
  });
}

void add_to(float* total, const float* partial, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) total[i] += partial[i];
}

/// Without a norm the gradient is a plain concatenation.
template <class T>
void join_rows(float* row, const T* d_dt, const float* d_b, const float* d_c, std::int64_t width,
               std::int64_t state) {
  for_lanes(width, [&](std::int64_t i, std::int64_t n)
                       HWY_ATTR { store_n(load_n(d_dt + i, n), row + i, n); });
  copy_row(row + width, d_b, state);
  copy_row(row + width + state, d_c, state);
}

void backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw_dt, Tensor dw_b, Tensor dw_c,
              Tensor d_dt, Tensor d_b, Tensor d_c, Tensor x, Tensor rstd, Tensor w_dt, Tensor w_b,
              Tensor w_c) {
  const std::int64_t tokens = x.dim(0), width = d_dt.dim(1), state = d_b.dim(1);
  const std::int64_t stride = x.dim(1), num_blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
  const bool norm = w_dt.present();
  ArenaScope scope(scratch);
  float* partials = scratch.allocate(DType::f32, {num_blocks, stride}).ptr<float>();
  visit_float(d_dt.dtype(), [&]<class T>(T) {
    visit_float(norm ? w_dt.dtype() : DType::f32, [&]<class W>(W) {
      parallel_blocks(stream, tokens, kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
        float* partial = partials + begin / kTokenBlock * stride;
        std::fill_n(partial, stride, 0.0f);
        for (std::int64_t t = begin; t < end; ++t) {
          const T* dt_row = d_dt.ptr<T>() + t * width;
          const float *b_row = d_b.ptr<float>() + t * state, *c_row = d_c.ptr<float>() + t * state;
          float* row = dx.ptr<float>() + t * stride;
          if (!norm) {
            join_rows(row, dt_row, b_row, c_row, width, state);
            continue;
          }
          const float *source = x.ptr<float>() + t * stride, *r = rstd.ptr<float>() + t * 3;
          const std::int64_t at_b = width, at_c = width + state;
          backward_row(row, partial, dt_row, source, r[0], w_dt.ptr<W>(), width);
          backward_row(row + at_b, partial + at_b, b_row, source + at_b, r[1], w_b.ptr<W>(), state);
          backward_row(row + at_c, partial + at_c, c_row, source + at_c, r[2], w_c.ptr<W>(), state);
        }
      });
    });
  });
  if (!norm) return;
  for (std::int64_t block = 0; block < num_blocks; ++block) {
    const float* partial = partials + block * stride;
    add_to(dw_dt.ptr<float>(), partial, width);
    add_to(dw_b.ptr<float>(), partial + width, state);
    add_to(dw_c.ptr<float>(), partial + width + state, state);
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

void inner_norm_forward(Stream& stream, Tensor dt, Tensor b, Tensor c, Tensor rstd, Tensor x,
                        Tensor w_dt, Tensor w_b, Tensor w_c, float eps) {
  HWY_DYNAMIC_DISPATCH(forward)(stream, dt, b, c, rstd, x, w_dt, w_b, w_c, eps);
}

void inner_norm_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw_dt, Tensor dw_b,
                         Tensor dw_c, Tensor d_dt, Tensor d_b, Tensor d_c, Tensor x, Tensor rstd,
                         Tensor w_dt, Tensor w_b, Tensor w_c) {
  HWY_DYNAMIC_DISPATCH(backward)
  (stream, scratch, dx, dw_dt, dw_b, dw_c, d_dt, d_b, d_c, x, rstd, w_dt, w_b, w_c);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

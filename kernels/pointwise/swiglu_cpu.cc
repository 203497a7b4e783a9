#include "kernels/pointwise/swiglu.h"

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pointwise/swiglu_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Rows of one unit of parallel work: about 16 Ki elements.
std::int64_t rows_per_block(std::int64_t ffn) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, ffn));
}

template <class T>
void forward_row(T* y, const T* gate, const T* up, float scale, std::int64_t ffn) {
  const VF factor = hn::Set(DF(), scale);
  for_lanes(ffn, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF product = hn::Mul(silu(load_n(gate + i, n)), load_n(up + i, n));
    store_n(hn::Mul(factor, product), y + i, n);
  });
}

/// Returns the gradient of scale.
/// dgate, dup and y may be gate, up and dy: every element is read before it is written.
template <class T>
float backward_row(T* dgate, T* dup, T* y, const T* dy, const T* gate, const T* up, float scale,
                   std::int64_t ffn) {
  const VF factor = hn::Set(DF(), scale);
  VF dscale = hn::Zero(DF());
  for_lanes(ffn, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF g = load_n(gate + i, n), u = load_n(up + i, n), d = load_n(dy + i, n);
    const VF s = sigmoid(g), silu_g = hn::Mul(g, s), product = hn::Mul(silu_g, u);
    dscale = hn::MulAdd(d, product, dscale);
    const VF scaled = hn::Mul(factor, d);
    store_n(hn::Mul(hn::Mul(scaled, u), silu_derivative(g, s)), dgate + i, n);
    store_n(hn::Mul(scaled, silu_g), dup + i, n);
    store_n(hn::Mul(factor, product), y + i, n);
  });
  return sum_lanes(dscale);
}

float scale_of(const Tensor& row_scale, std::int64_t row) {
  return row_scale.present() ? row_scale.ptr<float>()[row] : 1.0f;
}

void forward(Stream& stream, Tensor y, Tensor gate_up, Tensor row_scale) {
  const std::int64_t rows = y.dim(0), ffn = y.dim(1);
  visit_float(y.dtype(), [&]<class T>(T) {
    T* to = y.ptr<T>();
    const T* from = gate_up.ptr<T>();
    parallel_blocks(stream, rows, rows_per_block(ffn), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* gate = from + r * 2 * ffn;
        forward_row(to + r * ffn, gate, gate + ffn, scale_of(row_scale, r), ffn);
      }
    });
  });
}

void backward(Stream& stream, Tensor dgate_up, Tensor y, Tensor drow_scale, Tensor dy,
              Tensor gate_up, Tensor row_scale) {
  const std::int64_t rows = dy.dim(0), ffn = dy.dim(1);
  visit_float(dy.dtype(), [&]<class T>(T) {
    T* to = dgate_up.ptr<T>();
    const T* gradient = dy.ptr<T>();
    const T* from = gate_up.ptr<T>();
    parallel_blocks(stream, rows, rows_per_block(ffn), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t at = r * 2 * ffn;
        const float dscale =
            backward_row(to + at, to + at + ffn, y.ptr<T>() + r * ffn, gradient + r * ffn,
                         from + at, from + at + ffn, scale_of(row_scale, r), ffn);
        if (drow_scale.present()) drow_scale.ptr<float>()[r] = dscale;
      }
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

void swiglu_forward(Stream& stream, Tensor y, Tensor gate_up, Tensor row_scale) {
  HWY_DYNAMIC_DISPATCH(forward)(stream, y, gate_up, row_scale);
}

void swiglu_backward(Stream& stream, Tensor dgate_up, Tensor y, Tensor drow_scale, Tensor dy,
                     Tensor gate_up, Tensor row_scale) {
  HWY_DYNAMIC_DISPATCH(backward)(stream, dgate_up, y, drow_scale, dy, gate_up, row_scale);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

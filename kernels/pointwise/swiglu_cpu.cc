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
void forward_row(T* y, const T* gate, const T* up, std::int64_t ffn) {
  for_lanes(ffn, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    store_n(hn::Mul(silu(load_n(gate + i, n)), load_n(up + i, n)), y + i, n);
  });
}

/// dgate, dup and y may be gate, up and dy: every element is read before it is written.
template <class T>
void backward_row(T* dgate, T* dup, T* y, const T* dy, const T* gate, const T* up,
                  std::int64_t ffn) {
  for_lanes(ffn, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF g = load_n(gate + i, n), u = load_n(up + i, n), d = load_n(dy + i, n);
    const VF s = sigmoid(g), silu_g = hn::Mul(g, s);
    store_n(hn::Mul(hn::Mul(d, u), silu_derivative(g, s)), dgate + i, n);
    store_n(hn::Mul(d, silu_g), dup + i, n);
    store_n(hn::Mul(silu_g, u), y + i, n);
  });
}

void forward(Stream& stream, Tensor y, Tensor gate_up) {
  const std::int64_t rows = y.dim(0), ffn = y.dim(1);
  visit_float(y.dtype(), [&]<class T>(T) {
    T* to = y.ptr<T>();
    const T* from = gate_up.ptr<T>();
    parallel_blocks(stream, rows, rows_per_block(ffn), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* gate = from + r * 2 * ffn;
        forward_row(to + r * ffn, gate, gate + ffn, ffn);
      }
    });
  });
}

void backward(Stream& stream, Tensor dgate_up, Tensor y, Tensor dy, Tensor gate_up) {
  const std::int64_t rows = dy.dim(0), ffn = dy.dim(1);
  visit_float(dy.dtype(), [&]<class T>(T) {
    T* to = dgate_up.ptr<T>();
    const T* gradient = dy.ptr<T>();
    const T* from = gate_up.ptr<T>();
    parallel_blocks(stream, rows, rows_per_block(ffn), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t at = r * 2 * ffn;
        backward_row(to + at, to + at + ffn, y.ptr<T>() + r * ffn, gradient + r * ffn, from + at,
                     from + at + ffn, ffn);
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

void swiglu_forward(Stream& stream, Tensor y, Tensor gate_up) {
  HWY_DYNAMIC_DISPATCH(forward)(stream, y, gate_up);
}

void swiglu_backward(Stream& stream, Tensor dgate_up, Tensor y, Tensor dy, Tensor gate_up) {
  HWY_DYNAMIC_DISPATCH(backward)(stream, dgate_up, y, dy, gate_up);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

#include "kernels/linear/matmul.h"

#include <array>

#include "kernels/linear/gemm_cpu.h"

namespace jamba::cpu {

// A linear layer is a grouped one with a single expert.

void linear_forward(Stream& stream, Tensor y, Tensor x, Tensor w, Write write) {
  const std::array<std::int64_t, 2> offsets{0, x.dim(0)};
  grouped_product(stream, {Form::y, write, x.dtype(), y.dtype(), w.dim(1), w.dim(0), x.raw(),
                           w.raw(), y.raw(), offsets});
}

void linear_backward_input(Stream& stream, Tensor dx, Tensor dy, Tensor w, Write write) {
  const std::array<std::int64_t, 2> offsets{0, dy.dim(0)};
  grouped_product(stream, {Form::dx, write, dy.dtype(), dx.dtype(), w.dim(1), w.dim(0), dy.raw(),
                           w.raw(), dx.raw(), offsets});
}

void linear_backward_weight(Stream& stream, Tensor dw, Tensor dy, Tensor x, Write write) {
  const std::array<std::int64_t, 2> offsets{0, dy.dim(0)};
  grouped_product(stream, {Form::dw, write, dy.dtype(), dw.dtype(), dw.dim(1), dw.dim(0), dy.raw(),
                           x.raw(), dw.raw(), offsets});
}

}  // namespace jamba::cpu

#include "kernels/linear/grouped_matmul.h"

#include "kernels/linear/gemm_cpu.h"

namespace jamba::cpu {

void grouped_linear_forward(Stream& stream, Arena&, Tensor y, Tensor x, Tensor w,
                            std::span<const std::int64_t> offsets) {
  grouped_product(stream, {Form::y, Write::overwrite, x.dtype(), y.dtype(), w.dim(2), w.dim(1),
                           x.raw(), w.raw(), y.raw(), offsets});
}

void grouped_linear_backward_input(Stream& stream, Arena&, Tensor dx, Tensor dy, Tensor w,
                                   std::span<const std::int64_t> offsets) {
  grouped_product(stream, {Form::dx, Write::overwrite, dy.dtype(), dx.dtype(), w.dim(2), w.dim(1),
                           dy.raw(), w.raw(), dx.raw(), offsets});
}

void grouped_linear_backward_weight(Stream& stream, Arena&, Tensor dw, Tensor dy, Tensor x,
                                    std::span<const std::int64_t> offsets, Write write) {
  grouped_product(stream, {Form::dw, write, dy.dtype(), dw.dtype(), dw.dim(2), dw.dim(1), dy.raw(),
                           x.raw(), dw.raw(), offsets});
}

}  // namespace jamba::cpu

#include "kernels/linear/matmul.h"

#include <algorithm>
#include <array>

#include "kernels/core/parallel.h"
#include "kernels/linear/gemm_cpu.h"

namespace jamba::cpu {

namespace {

/// y[t] = row.
void fill_rows(Stream& stream, Tensor y, Tensor row) {
  constexpr std::int64_t kTokenBlock = 64;
  visit_float(y.dtype(), [&]<class T>(T) {
    parallel_blocks(stream, y.dim(0), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t)
        std::copy_n(row.ptr<T>(), row.numel(), y.ptr<T>() + t * row.numel());
    });
  });
}

}  // namespace

// A linear layer is a grouped one with a single expert.

void linear_forward(Stream& stream, Arena&, Tensor y, Tensor x, Tensor w, Tensor bias) {
  if (bias.present()) fill_rows(stream, y, bias);
  const Write write = bias.present() ? Write::accumulate : Write::overwrite;
  const std::array<std::int64_t, 2> offsets{0, x.dim(0)};
  grouped_product(stream, {Form::y, write, x.dtype(), y.dtype(), w.dim(1), w.dim(0), x.raw(),
                           w.raw(), y.raw(), offsets});
}

void linear_backward_input(Stream& stream, Arena&, Tensor dx, Tensor dy, Tensor w, Write write) {
  const std::array<std::int64_t, 2> offsets{0, dy.dim(0)};
  grouped_product(stream, {Form::dx, write, dy.dtype(), dx.dtype(), w.dim(1), w.dim(0), dy.raw(),
                           w.raw(), dx.raw(), offsets});
}

void linear_backward_weight(Stream& stream, Arena&, Tensor dw, Tensor dy, Tensor x, Write write) {
  const std::array<std::int64_t, 2> offsets{0, dy.dim(0)};
  grouped_product(stream, {Form::dw, write, dy.dtype(), dw.dtype(), dw.dim(1), dw.dim(0), dy.raw(),
                           x.raw(), dw.raw(), offsets});
}

}  // namespace jamba::cpu

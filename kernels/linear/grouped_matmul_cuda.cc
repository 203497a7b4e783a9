// One product an expert, one after the other: experts have hundreds of rows and more in training,
// enough to fill a device each.

#include "kernels/linear/grouped_matmul.h"

#include "kernels/linear/product_cuda.h"

namespace jamba::cuda {

namespace {

const char* at(const Tensor& t, std::int64_t element) {
  return static_cast<const char*>(t.raw()) + element * dtype_bytes(t.dtype());
}
char* at_result(const Tensor& t, std::int64_t element) { return const_cast<char*>(at(t, element)); }

template <class F>
void for_each_expert(std::span<const std::int64_t> offsets, F&& f) {
  for (std::int64_t e = 0; e + 1 < std::ssize(offsets); ++e) {
    const std::int64_t begin = offsets[static_cast<std::size_t>(e)];
    f(e, begin, offsets[static_cast<std::size_t>(e) + 1] - begin);
  }
}

}  // namespace

void grouped_linear_forward(Stream& stream, Arena& scratch, Tensor y, Tensor x, Tensor w,
                            std::span<const std::int64_t> offsets) {
  const std::int64_t out = w.dim(1), in = w.dim(2);
  for_each_expert(offsets, [&](std::int64_t e, std::int64_t begin, std::int64_t rows) {
    multiply(stream, scratch,
             {Form::y, Write::overwrite, x.dtype(), y.dtype(), rows, out, in, at(x, begin * in),
              at(w, e * out * in), at_result(y, begin * out)});
  });
}

void grouped_linear_backward_input(Stream& stream, Arena& scratch, Tensor dx, Tensor dy, Tensor w,
                                   std::span<const std::int64_t> offsets) {
  const std::int64_t out = w.dim(1), in = w.dim(2);
  for_each_expert(offsets, [&](std::int64_t e, std::int64_t begin, std::int64_t rows) {
    multiply(stream, scratch,
             {Form::dx, Write::overwrite, dy.dtype(), dx.dtype(), rows, in, out,
              at(dy, begin * out), at(w, e * out * in), at_result(dx, begin * in)});
  });
}

void grouped_linear_backward_weight(Stream& stream, Arena& scratch, Tensor dw, Tensor dy, Tensor x,
                                    std::span<const std::int64_t> offsets, Write write) {
  const std::int64_t out = dw.dim(1), in = dw.dim(2);
  for_each_expert(offsets, [&](std::int64_t e, std::int64_t begin, std::int64_t rows) {
    multiply(stream, scratch,
             {Form::dw, write, dy.dtype(), dw.dtype(), out, in, rows, at(dy, begin * out),
              at(x, begin * in), at_result(dw, e * out * in)});
  });
}

}  // namespace jamba::cuda

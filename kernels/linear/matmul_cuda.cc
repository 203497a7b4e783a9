#include "kernels/linear/matmul.h"

#include "kernels/linear/product_cuda.h"

namespace jamba::cuda {

void linear_forward(Stream& stream, Arena& scratch, Tensor y, Tensor x, Tensor w, Tensor bias) {
  multiply(stream, scratch,
           {Form::y, Write::overwrite, x.dtype(), y.dtype(), x.rows(), w.dim(0), w.dim(1), x.raw(),
            w.raw(), y.raw(), bias.raw()});
}

void linear_backward_input(Stream& stream, Arena& scratch, Tensor dx, Tensor dy, Tensor w,
                           Write write) {
  multiply(stream, scratch,
           {Form::dx, write, dy.dtype(), dx.dtype(), dy.rows(), w.dim(1), w.dim(0), dy.raw(),
            w.raw(), dx.raw()});
}

void linear_backward_weight(Stream& stream, Arena& scratch, Tensor dw, Tensor dy, Tensor x,
                            Write write) {
  multiply(stream, scratch,
           {Form::dw, write, dy.dtype(), dw.dtype(), dw.dim(0), dw.dim(1), dy.rows(), dy.raw(),
            x.raw(), dw.raw()});
}

}  // namespace jamba::cuda

#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"
#include "kernels/core/write.h"

namespace jamba {

// The three products of a linear layer y = x w^T, w stored [out, in] as in PyTorch.
// Dtypes: inputs float32 or bfloat16, equal to each other; outputs float32, or the inputs' dtype.
//         Sums in float32.
// Aliasing: none.  M = 0 (no tokens) is legal: y, dx are empty, dw is unchanged or zeroed.
// Errors: LogicError if shapes or dtypes disagree.
// Determinism: bitwise the same for any number of threads. CPU: a row of y or dx has the same bits
//         in any batch: they depend on that row, w and the machine's instruction set alone. CUDA
//         (cuBLASLt): the same bits for the same shapes and alignment on the same kind of device.
// Scratch: cuBLASLt's workspace, 32 MiB at most. On the CPU none: panels are kept by the stream, as
//         are cuBLASLt's choices of kernels.

/// y = x w^T + bias.   Shapes: y [tokens, out]; x [tokens, in]; w [out, in]; bias [out], optional,
/// in y's dtype. The bias is added to the float32 sum: y is rounded once.
void linear_forward(Stream&, Arena& scratch, Tensor y, Tensor x, Tensor w, Tensor bias = {});
/// dx = dy w.   Shapes: dx [tokens, in]; dy [tokens, out]; w [out, in].
void linear_backward_input(Stream&, Arena& scratch, Tensor dx, Tensor dy, Tensor w,
                           Write = Write::overwrite);
/// dw += dy^T x.   Shapes: dw [out, in] float32; dy [tokens, out]; x [tokens, in].
void linear_backward_weight(Stream&, Arena& scratch, Tensor dw, Tensor dy, Tensor x,
                            Write = Write::accumulate);

/// dbias += sum over tokens of dy.   Shapes: dbias [out] float32; dy [tokens, out].
/// Determinism: fixed blocks of tokens, summed in order.
void bias_backward(Stream&, Arena& scratch, Tensor dbias, Tensor dy);

}  // namespace jamba

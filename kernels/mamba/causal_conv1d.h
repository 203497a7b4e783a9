#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Depthwise causal convolution and SiLU: y = silu(bias + sum_j w[:, j] * x[t - (K-1) + j]).
/// Taps that reach before the token's document read zero; taps that reach before t = 0 read
/// `history`, or zero where it is absent.
/// Shapes: x, y [batch, seq, inner]; w [inner, K], K <= 8; bias [inner] or absent;
///         doc_start [batch, seq] or absent (place of the first token of t's document; a value
///         <= 0 at t means the document may reach into history by that many tokens and more);
///         history [batch, K-1, inner] or absent: the inputs just before t = 0.
/// Dtypes: x, y, history float32 or bfloat16, equal; w, bias float32 or bfloat16; doc_start int32.
///         Sums in float32.
/// Errors: LogicError if shapes disagree.  seq = 0 and seq < K are legal.
void causal_conv1d_forward(Stream&, Tensor y, Tensor x, Tensor w, Tensor bias, Tensor doc_start,
                           Tensor history);

/// Recomputes the pre-activation from x instead of saving it. dx overwrites; dw, dbias accumulate.
/// Shapes: dx, dy, x as forward; dw [inner, K]; dbias [inner] or absent;
///         dhistory [batch, K-1, inner] or absent, overwritten.
/// Dtypes: dw, dbias float32; others as forward.
/// Determinism: bitwise for any thread count.
void causal_conv1d_backward(Stream&, Arena& scratch, Tensor dx, Tensor dw, Tensor dbias,
                            Tensor dhistory, Tensor dy, Tensor x, Tensor w, Tensor bias,
                            Tensor doc_start, Tensor history);

}  // namespace jamba

#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Adds a residual, then normalises each row by its root mean square and scales it:
/// sum = x + residual;  y = w * sum / sqrt(mean(sum^2) + eps).
/// Shapes: x, residual, sum, y [tokens, model]; w [model]; rstd [tokens], saved for backward.
/// Dtypes: x, residual, sum, y float32 or bfloat16, equal; w float32 or bfloat16; rstd float32.
///         sum is rounded to its dtype before the norm reads it. Statistics in float32.
/// Aliasing: sum may be x or residual. residual may be absent; then sum must be absent too.
/// Errors: LogicError if shapes disagree or eps < 0.
/// Source: arXiv:1910.07467; Hugging Face JambaRMSNorm (the weight multiplies after the cast).
void rms_norm_forward(Stream&, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor residual,
                      Tensor w, float eps);

/// dx = residual gradient + norm gradient;  dw += sum over tokens of dy * x * rstd.
/// Shapes: dx, dy, x [tokens, model]; dw, w [model]; rstd [tokens].  x is forward's `sum`.
/// d_residual [tokens, model]: gradient that reaches `sum` past the norm; absent for zero.
/// Dtypes: dx, dy, d_residual, x as forward; dw float32.   Aliasing: dx may be dy or d_residual.
/// Determinism: dw sums fixed blocks of tokens in order, for any thread count.
void rms_norm_backward(Stream&, Arena& scratch, Tensor dx, Tensor dw, Tensor dy, Tensor d_residual,
                       Tensor x, Tensor rstd, Tensor w);

}  // namespace jamba

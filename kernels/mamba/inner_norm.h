#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Splits x_proj's output into dt, B and C and, where weights are given, applies Jamba's RMSNorm to
/// each of the three over its own width: y = w * x / sqrt(mean(x^2) + eps).
/// Shapes: x [tokens, R + 2N]; dt [tokens, R]; b, c [tokens, N]; w_dt [R], w_b, w_c [N], or all
///         three absent (no norm); rstd [tokens, 3], saved for backward (absent without norm).
/// Dtypes: x, b, c, rstd float32; dt float32 or bfloat16; weights float32 or bfloat16.
/// Errors: LogicError if shapes disagree or only some weights are given.
/// Source: arXiv:2403.19887 section 6.4; Hugging Face JambaMambaMixer.
void inner_norm_forward(Stream&, Tensor dt, Tensor b, Tensor c, Tensor rstd, Tensor x, Tensor w_dt,
                        Tensor w_b, Tensor w_c, float eps);

/// dx overwrites, the weights' gradients (float32) accumulate.
/// Shapes: as forward; d_dt [tokens, R] in dt's dtype; d_b, d_c [tokens, N] float32.
/// Determinism: weights' gradients sum fixed blocks of tokens in order.
void inner_norm_backward(Stream&, Arena& scratch, Tensor dx, Tensor dw_dt, Tensor dw_b, Tensor dw_c,
                         Tensor d_dt, Tensor d_b, Tensor d_c, Tensor x, Tensor rstd, Tensor w_dt,
                         Tensor w_b, Tensor w_c);

}  // namespace jamba

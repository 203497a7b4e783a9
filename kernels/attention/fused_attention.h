#pragma once
// Attention by cuDNN's fused kernels, where the program has them and they take the case. Private to
// kernels/attention.

#include "kernels/attention/attention.h"
#include "kernels/core/backend.h"

namespace jamba::cuda {

/// As attention_forward and attention_backward, or false, and nothing done, if cuDNN does not take
/// the case: float32, heads of no multiple of 8 elements, fewer than 16 queries, rows that do not
/// start at multiples of 16 bytes, documents of unknown number, or what its heuristics have no
/// kernel for on the device. Weak: a program that is built with JAMBA_CUDNN=OFF has neither.
/// Determinism: bitwise on one kind of device and version of cuDNN; only such kernels are asked
/// for.
JAMBA_WEAK bool fused_attention_forward(Stream&, Arena& scratch, Tensor out, Tensor lse, Tensor q,
                                        Tensor k, Tensor v, Tensor doc_start, const AttentionShape&,
                                        float scale);
JAMBA_WEAK bool fused_attention_backward(Stream&, Arena& scratch, Tensor dq, Tensor dk, Tensor dv,
                                         Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out,
                                         Tensor lse, Tensor doc_start, const AttentionShape&,
                                         float scale);

}  // namespace jamba::cuda

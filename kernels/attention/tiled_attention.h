#pragma once
// Attention by our own kernels (attention_forward.cu, attention_backward.cu), which take every case
// up to heads of 256 elements. Private to kernels/attention.

#include "kernels/attention/attention.h"

namespace jamba::cuda {

void tiled_attention_forward(Stream&, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                             Tensor doc_start, const AttentionShape&, float scale);
void tiled_attention_backward(Stream&, Arena& scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                              Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                              Tensor doc_start, const AttentionShape&, float scale);

}  // namespace jamba::cuda

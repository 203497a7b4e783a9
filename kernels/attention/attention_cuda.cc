#include "kernels/attention/attention.h"

#include "kernels/attention/fused_attention.h"
#include "kernels/attention/tiled_attention.h"

namespace jamba::cuda {

void attention_forward(Stream& stream, Arena& scratch, Tensor out, Tensor lse, Tensor q, Tensor k,
                       Tensor v, Tensor doc_start, const AttentionShape& shape, float scale) {
  if (fused_attention_forward != nullptr &&
      fused_attention_forward(stream, scratch, out, lse, q, k, v, doc_start, shape, scale))
    return;
  tiled_attention_forward(stream, out, lse, q, k, v, doc_start, shape, scale);
}

void attention_backward(Stream& stream, Arena& scratch, Tensor dq, Tensor dk, Tensor dv,
                        Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                        Tensor doc_start, const AttentionShape& shape, float scale) {
  if (fused_attention_backward != nullptr &&
      fused_attention_backward(stream, scratch, dq, dk, dv, dout, q, k, v, out, lse, doc_start,
                               shape, scale))
    return;
  tiled_attention_backward(stream, scratch, dq, dk, dv, dout, q, k, v, out, lse, doc_start, shape,
                           scale);
}

}  // namespace jamba::cuda

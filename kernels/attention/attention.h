#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Sizes of one attention call. tokens = batch * seq; query head h reads kv head
/// h / (num_heads / num_kv_heads).
struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t seq = 0;       // queries a sequence
  std::int64_t seq_keys = 0;  // keys a sequence; >= seq. Query i sits at key seq_keys - seq + i.
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  /// With doc_start: how many documents the queries of all sequences lie in at most, which the host
  /// must know for cuDNN's packed sequences; 0: not known. A document that goes on in the next
  /// sequence counts in both.
  std::int64_t documents = 0;
};

/// Causal softmax attention over grouped heads, in blocks: memory is linear in length.
/// out = softmax(scale * q k^T + mask) v, where query i sees key j iff j <= its own place and
/// j >= doc_start[i].
/// Shapes: q, out [batch, seq, num_heads, head_dim] as [batch * seq, num_heads * head_dim];
///         k, v [batch * seq_keys, num_kv_heads * head_dim];
///         lse [batch, num_heads, seq], saved for backward;
///         doc_start [batch, seq]: place of the first key of the query's document; absent: all 0.
/// Dtypes: q, k, v, out float32 or bfloat16, equal; lse float32; doc_start int32.
///         Scores, softmax and sums in float32.
/// Units: scale multiplies the scores, usually head_dim^-0.5.
/// Errors: LogicError if shapes disagree, num_heads is no multiple of num_kv_heads, a query would
///         see no key, as its document starts after it (on CUDA: its output is not a number), or
///         there are more documents than the shape says (on CUDA: some outputs stay as they were).
/// Determinism: bitwise for any thread count.   Source: arXiv:2307.08691 (FlashAttention-2).
/// CUDA: cuDNN's kernels for bfloat16 where it has them, else our own, in float32 arithmetic.
void attention_forward(Stream&, Arena& scratch, Tensor out, Tensor lse, Tensor q, Tensor k,
                       Tensor v, Tensor doc_start, const AttentionShape&, float scale);

/// Shapes: dq as q; dk, dv as k, all overwritten; out and lse from forward. dk and dv are what
/// these queries give: zero for keys that none of them sees. Determinism: bitwise for any thread
/// count; dk and dv sum query blocks in a fixed order.
void attention_backward(Stream&, Arena& scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                        Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor doc_start,
                        const AttentionShape&, float scale);

}  // namespace jamba

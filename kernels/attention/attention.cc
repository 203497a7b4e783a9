#include "kernels/attention/attention.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(attention_forward);
JAMBA_DECLARE_BACKENDS(attention_backward);

namespace {

void check_operands(Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor doc_start,
                    const AttentionShape& s) {
  JAMBA_CHECK(s.batch >= 0 && s.seq >= 0 && s.seq_keys >= s.seq,
              "batch {}, seq {}, seq_keys {}: there must be at least as many keys as queries",
              s.batch, s.seq, s.seq_keys);
  JAMBA_CHECK(
      s.head_dim > 0 && s.num_kv_heads > 0 && s.num_heads > 0 && s.num_heads % s.num_kv_heads == 0,
      "{} heads over {} kv heads of {}: the first must be a multiple of the second", s.num_heads,
      s.num_kv_heads, s.head_dim);
  expect_float_tensor("q", q, {s.batch * s.seq, s.num_heads * s.head_dim});
  expect_tensor("k", k, q.dtype(), {s.batch * s.seq_keys, s.num_kv_heads * s.head_dim});
  expect_tensor("v", v, q.dtype(), {s.batch * s.seq_keys, s.num_kv_heads * s.head_dim});
  expect_tensor("out", out, q.dtype(), {s.batch * s.seq, s.num_heads * s.head_dim});
  expect_tensor("lse", lse, DType::f32, {s.batch, s.num_heads, s.seq});
  if (doc_start.present()) expect_tensor("doc_start", doc_start, DType::i32, {s.batch, s.seq});
}

}  // namespace

void attention_forward(Stream& stream, Arena& scratch, Tensor out, Tensor lse, Tensor q, Tensor k,
                       Tensor v, Tensor doc_start, const AttentionShape& shape, float scale) {
  check_operands(q, k, v, out, lse, doc_start, shape);
  ProfileScope scope(stream.profile(), Part::attention);
  JAMBA_DISPATCH(attention_forward, stream, scratch, out, lse, q, k, v, doc_start, shape, scale);
}

void attention_backward(Stream& stream, Arena& scratch, Tensor dq, Tensor dk, Tensor dv,
                        Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                        Tensor doc_start, const AttentionShape& shape, float scale) {
  check_operands(q, k, v, out, lse, doc_start, shape);
  expect_tensor("dout", dout, q.dtype(), {q.rows(), q.cols()});
  expect_tensor("dq", dq, q.dtype(), {q.rows(), q.cols()});
  expect_tensor("dk", dk, q.dtype(), {k.rows(), k.cols()});
  expect_tensor("dv", dv, q.dtype(), {k.rows(), k.cols()});
  ProfileScope scope(stream.profile(), Part::attention);
  JAMBA_DISPATCH(attention_backward, stream, scratch, dq, dk, dv, dout, q, k, v, out, lse,
                 doc_start, shape, scale);
}

}  // namespace jamba

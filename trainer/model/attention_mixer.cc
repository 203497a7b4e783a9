#include "trainer/model/attention_mixer.h"

#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/attention/rope.h"

namespace jamba {

AttentionMixer::AttentionMixer(const ModelConfig& c, const Parameters& p, const std::string& prefix)
    : num_heads_(c.num_attention_heads),
      num_kv_heads_(c.num_key_value_heads),
      head_dim_(c.attention_head_dim()),
      scale_(1.0f / std::sqrt(static_cast<float>(head_dim_))),
      rope_(c.rope),
      rope_theta_(c.rope_theta),
      q_(p.weight(prefix + "q_proj.weight")),
      k_(p.weight(prefix + "k_proj.weight")),
      v_(p.weight(prefix + "v_proj.weight")),
      o_(p.weight(prefix + "o_proj.weight")) {}

void AttentionMixer::project(const Context& ctx, const Sequences& s, Tensor q, Tensor k, Tensor v,
                             Tensor x) const {
  linear_forward(ctx.stream, q, x, q_.value);
  linear_forward(ctx.stream, k, x, k_.value);
  linear_forward(ctx.stream, v, x, v_.value);
  if (!rope_) return;
  rope(ctx.stream, q, s.positions, head_dim_, rope_theta_, Rotation::forward);
  rope(ctx.stream, k, s.positions, head_dim_, rope_theta_, Rotation::forward);
}

void AttentionMixer::forward(const Context& ctx, const Sequences& s, Tensor y, Tensor x,
                             Saved& saved) const {
  const std::int64_t tokens = s.tokens();
  const DType dtype = x.dtype();
  saved.q = ctx.activation(dtype, {tokens, num_heads_ * head_dim_});
  saved.k = ctx.activation(dtype, {tokens, num_kv_heads_ * head_dim_});
  saved.v = ctx.activation(dtype, {tokens, num_kv_heads_ * head_dim_});
  saved.out = ctx.activation(dtype, {tokens, num_heads_ * head_dim_});
  saved.lse = ctx.activation(DType::f32, {s.batch, num_heads_, s.seq});
  project(ctx, s, saved.q, saved.k, saved.v, x);
  const AttentionShape shape{s.batch, s.seq, s.seq, num_heads_, num_kv_heads_, head_dim_};
  attention_forward(ctx.stream, ctx.scratch, saved.out, saved.lse, saved.q, saved.k, saved.v,
                    s.doc_start, shape, scale_);
  linear_forward(ctx.stream, y, saved.out, o_.value);
}

void AttentionMixer::backward(const Context& ctx, const Sequences& s, Tensor dx, Tensor dy,
                              Tensor x, const Saved& saved) const {
  ArenaScope scope(ctx.scratch);
  const DType dtype = dy.dtype();
  const Tensor dout = ctx.scratch.allocate(dtype, saved.out.dims());
  const Tensor dq = ctx.scratch.allocate(dtype, saved.q.dims());
  const Tensor dk = ctx.scratch.allocate(dtype, saved.k.dims());
  const Tensor dv = ctx.scratch.allocate(dtype, saved.v.dims());
  linear_backward_input(ctx.stream, dout, dy, o_.value);
  linear_backward_weight(ctx.stream, o_.grad, dy, saved.out, ctx.weight_gradients);
  const AttentionShape shape{s.batch, s.seq, s.seq, num_heads_, num_kv_heads_, head_dim_};
  attention_backward(ctx.stream, ctx.scratch, dq, dk, dv, dout, saved.q, saved.k, saved.v,
                     saved.out, saved.lse, s.doc_start, shape, scale_);
  if (rope_) {
    rope(ctx.stream, dq, s.positions, head_dim_, rope_theta_, Rotation::backward);
    rope(ctx.stream, dk, s.positions, head_dim_, rope_theta_, Rotation::backward);
  }
  linear_backward_input(ctx.stream, dx, dq, q_.value);
  linear_backward_input(ctx.stream, dx, dk, k_.value, Write::accumulate);
  linear_backward_input(ctx.stream, dx, dv, v_.value, Write::accumulate);
  linear_backward_weight(ctx.stream, q_.grad, dq, x, ctx.weight_gradients);
  linear_backward_weight(ctx.stream, k_.grad, dk, x, ctx.weight_gradients);
  linear_backward_weight(ctx.stream, v_.grad, dv, x, ctx.weight_gradients);
}

void AttentionMixer::infer(const Context& ctx, const Sequences& s, Tensor y, Tensor x,
                           KvCache& cache) const {
  const std::int64_t seq = s.seq, total = cache.length + seq;
  JAMBA_CHECK(s.batch == 1, "generation runs one sequence, got {}", s.batch);
  JAMBA_CHECK(total <= cache.k.dim(0), "cache of {} tokens is full", cache.k.dim(0));
  const Tensor q = ctx.activation(x.dtype(), {seq, num_heads_ * head_dim_});
  const Tensor out = ctx.activation(x.dtype(), {seq, num_heads_ * head_dim_});
  const Tensor lse = ctx.activation(DType::f32, {1, num_heads_, seq});
  project(ctx, s, q, cache.k.slice(cache.length, seq), cache.v.slice(cache.length, seq), x);
  cache.length = total;
  const AttentionShape shape{1, seq, total, num_heads_, num_kv_heads_, head_dim_};
  attention_forward(ctx.stream, ctx.scratch, out, lse, q, cache.k.slice(0, total),
                    cache.v.slice(0, total), {}, shape, scale_);
  linear_forward(ctx.stream, y, out, o_.value);
}

KvCache AttentionMixer::make_cache(Arena& arena, DType dtype, std::int64_t capacity) const {
  const std::int64_t width = num_kv_heads_ * head_dim_;
  return {arena.allocate(dtype, {capacity, width}), arena.allocate(dtype, {capacity, width}), 0};
}

}  // namespace jamba

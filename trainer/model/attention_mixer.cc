#include "trainer/model/attention_mixer.h"

#include <cmath>

#include "kernels/attention/rope.h"
#include "kernels/pointwise/copy_blocks.h"
#include "parallel/context_parallel.h"

namespace jamba {

AttentionMixer::AttentionMixer(const ModelConfig& c, const Parameters& p, const std::string& prefix)
    : num_heads_(p.entry(prefix + "q_proj.weight").shard.extents[0] / c.attention_head_dim()),
      num_kv_heads_(p.entry(prefix + "k_proj.weight").shard.extents[0] / c.attention_head_dim()),
      head_dim_(c.attention_head_dim()),
      scale_(1.0f / std::sqrt(static_cast<float>(head_dim_))),
      rope_(c.rope),
      rope_theta_(c.rope_theta),
      q_(p.weight(prefix + "q_proj.weight")),
      k_(p.weight(prefix + "k_proj.weight")),
      v_(p.weight(prefix + "v_proj.weight")),
      o_(p.weight(prefix + "o_proj.weight")) {}

struct AttentionMixer::Plan {
  AttentionShape shape;
  Communicator& cp;
  SequenceSplit split;
  enum class Exchange { none, heads, past } exchange;
  HeadDeal queries, keys;
  Tensor doc_start;  // for the queries, places among the keys

  std::int64_t query_rows() const { return shape.batch * shape.seq; }
  std::int64_t key_rows() const { return shape.batch * shape.seq_keys; }
  std::int64_t query_width() const { return shape.num_heads * shape.head_dim; }
  std::int64_t key_width() const { return shape.num_kv_heads * shape.head_dim; }
};

AttentionMixer::Plan AttentionMixer::plan(const Context& ctx, const Sequences& s) const {
  Communicator& cp = ctx.mesh.cp();
  const int ranks = cp.size();
  Plan p{{s.batch, s.seq, s.seq, num_heads_, num_kv_heads_, head_dim_, s.documents},
         cp,
         {s.whole_seq, ranks},
         Plan::Exchange::none,
         {num_heads_, ranks},
         {num_kv_heads_, ranks},
         s.doc_start};
  // Sequences of one document each need no starts, and what needs none is faster.
  const bool starts = s.documents != s.batch;
  if (!starts) p.doc_start = {};
  if (ranks == 1) return p;
  if (deals_heads(num_heads_, num_kv_heads_, ranks)) {
    p.exchange = Plan::Exchange::heads;
    p.shape.seq = p.shape.seq_keys = s.whole_seq;
    p.shape.num_heads = p.queries.count();
    p.shape.num_kv_heads = p.keys.count();
    if (starts) p.doc_start = s.whole_doc_start;
    return p;
  }
  p.exchange = Plan::Exchange::past;
  p.shape.seq_keys = p.split.first(cp.rank() + 1);
  if (starts && s.whole_doc_start.present()) {
    p.doc_start = ctx.temporary(DType::i32, {s.batch, s.seq});
    copy_blocks(ctx.stream, p.doc_start, {0, 0, s.seq}, s.whole_doc_start,
                {p.split.first(cp.rank()), 0, s.whole_seq}, {1, s.batch, s.seq});
  }
  return p;
}

void AttentionMixer::project(const Context& ctx, const Sequences& s, const Projections& out,
                             Tensor x) const {
  linear_forward(ctx.stream, ctx.scratch, out.q, x, q_->value);
  linear_forward(ctx.stream, ctx.scratch, out.k, x, k_->value);
  linear_forward(ctx.stream, ctx.scratch, out.v, x, v_->value);
  if (!rope_) return;
  rope(ctx.stream, out.q, s.positions, head_dim_, rope_theta_, Rotation::forward);
  rope(ctx.stream, out.k, s.positions, head_dim_, rope_theta_, Rotation::forward);
}

/// out [tokens, heads * head_dim] of this rank's tokens, from their projections.
void AttentionMixer::attend(const Context& ctx, const Plan& p, Tensor out, const Projections& mine,
                            Saved& saved) const {
  switch (p.exchange) {
    case Plan::Exchange::none:
      break;
    case Plan::Exchange::heads:
      tokens_to_heads(ctx.stream, ctx.scratch, p.cp, saved.q, mine.q, p.queries, p.split);
      tokens_to_heads(ctx.stream, ctx.scratch, p.cp, saved.k, mine.k, p.keys, p.split);
      tokens_to_heads(ctx.stream, ctx.scratch, p.cp, saved.v, mine.v, p.keys, p.split);
      break;
    case Plan::Exchange::past:
      gather_past(ctx.stream, ctx.scratch, p.cp, saved.k, mine.k, p.split);
      gather_past(ctx.stream, ctx.scratch, p.cp, saved.v, mine.v, p.split);
      break;
  }
  attention_forward(ctx.stream, ctx.scratch, saved.out, saved.lse, saved.q, saved.k, saved.v,
                    p.doc_start, p.shape, scale_);
  if (p.exchange == Plan::Exchange::heads) {
    heads_to_tokens(ctx.stream, ctx.scratch, p.cp, out, saved.out, p.queries, p.split);
  }
}

void AttentionMixer::forward(const Context& ctx, const Sequences& s, Tensor y, Tensor x,
                             Saved& saved) const {
  ArenaScope scope(ctx.scratch);
  const DType dtype = x.dtype();
  const Plan p = plan(ctx, s);
  saved.q = ctx.activation(dtype, {p.query_rows(), p.query_width()});
  saved.k = ctx.activation(dtype, {p.key_rows(), p.key_width()});
  saved.v = ctx.activation(dtype, {p.key_rows(), p.key_width()});
  saved.out = ctx.activation(dtype, {p.query_rows(), p.query_width()});
  saved.lse = ctx.activation(DType::f32, {s.batch, p.shape.num_heads, p.shape.seq});
  const auto own = [&](Tensor kept, bool exchanged, std::int64_t heads) {
    return exchanged ? ctx.temporary(dtype, {s.tokens(), heads * head_dim_}) : kept;
  };
  const bool queries_move = p.exchange == Plan::Exchange::heads;
  const bool keys_move = p.exchange != Plan::Exchange::none;
  const Projections mine{own(saved.q, queries_move, num_heads_),
                         own(saved.k, keys_move, num_kv_heads_),
                         own(saved.v, keys_move, num_kv_heads_)};
  const Tensor out = own(saved.out, queries_move, num_heads_);
  project(ctx, s, mine, x);
  attend(ctx, p, out, mine, saved);
  linear_forward(ctx.stream, ctx.scratch, y, out, o_->value);
}

/// Gradients of this rank's projections, from that of its tokens' outputs.
void AttentionMixer::attend_backward(const Context& ctx, const Plan& p,
                                     const Projections& gradients, Tensor dout,
                                     const Saved& saved) const {
  ArenaScope scope(ctx.scratch);
  const bool queries_move = p.exchange == Plan::Exchange::heads;
  const bool keys_move = p.exchange != Plan::Exchange::none;
  const auto like = [&](bool moves, const Tensor& kept, const Tensor& own) {
    return moves ? ctx.scratch.allocate(kept.dtype(), kept.dims()) : own;
  };
  const Tensor dwhole = like(queries_move, saved.out, dout);
  const Tensor dq = like(queries_move, saved.q, gradients.q);
  const Tensor dk = like(keys_move, saved.k, gradients.k);
  const Tensor dv = like(keys_move, saved.v, gradients.v);
  if (queries_move) {
    tokens_to_heads(ctx.stream, ctx.scratch, p.cp, dwhole, dout, p.queries, p.split);
  }
  attention_backward(ctx.stream, ctx.scratch, dq, dk, dv, dwhole, saved.q, saved.k, saved.v,
                     saved.out, saved.lse, p.doc_start, p.shape, scale_);
  switch (p.exchange) {
    case Plan::Exchange::none:
      break;
    case Plan::Exchange::heads:
      heads_to_tokens(ctx.stream, ctx.scratch, p.cp, gradients.q, dq, p.queries, p.split);
      heads_to_tokens(ctx.stream, ctx.scratch, p.cp, gradients.k, dk, p.keys, p.split);
      heads_to_tokens(ctx.stream, ctx.scratch, p.cp, gradients.v, dv, p.keys, p.split);
      break;
    case Plan::Exchange::past:
      scatter_past(ctx.stream, ctx.scratch, p.cp, gradients.k, dk, p.split);
      scatter_past(ctx.stream, ctx.scratch, p.cp, gradients.v, dv, p.split);
      break;
  }
}

void AttentionMixer::backward(const Context& ctx, const Sequences& s, Tensor dx, Tensor dy,
                              Tensor x, const Saved& saved,
                              const InputGradientReady& dx_ready) const {
  ArenaScope scope(ctx.scratch);
  const DType dtype = dy.dtype();
  const Plan p = plan(ctx, s);
  const Tensor dout = ctx.temporary(dtype, {s.tokens(), num_heads_ * head_dim_});
  const Projections d{ctx.temporary(dtype, {s.tokens(), num_heads_ * head_dim_}),
                      ctx.temporary(dtype, {s.tokens(), num_kv_heads_ * head_dim_}),
                      ctx.temporary(dtype, {s.tokens(), num_kv_heads_ * head_dim_})};
  Tensor out = saved.out;
  if (p.exchange == Plan::Exchange::heads) {  // back to this rank's tokens, as o_proj had it
    out = ctx.temporary(dtype, {s.tokens(), num_heads_ * head_dim_});
    heads_to_tokens(ctx.stream, ctx.scratch, p.cp, out, saved.out, p.queries, p.split);
  }
  linear_backward_input(ctx.stream, ctx.scratch, dout, dy, o_->value);
  linear_backward_weight(ctx.stream, ctx.scratch, o_->grad, dy, out, o_->write);
  attend_backward(ctx, p, d, dout, saved);
  if (rope_) {
    rope(ctx.stream, d.q, s.positions, head_dim_, rope_theta_, Rotation::backward);
    rope(ctx.stream, d.k, s.positions, head_dim_, rope_theta_, Rotation::backward);
  }
  linear_backward_input(ctx.stream, ctx.scratch, dx, d.q, q_->value);
  linear_backward_input(ctx.stream, ctx.scratch, dx, d.k, k_->value, Write::accumulate);
  linear_backward_input(ctx.stream, ctx.scratch, dx, d.v, v_->value, Write::accumulate);
  dx_ready();
  linear_backward_weight(ctx.stream, ctx.scratch, q_->grad, d.q, x, q_->write);
  linear_backward_weight(ctx.stream, ctx.scratch, k_->grad, d.k, x, k_->write);
  linear_backward_weight(ctx.stream, ctx.scratch, v_->grad, d.v, x, v_->write);
}

void AttentionMixer::infer(const Context& ctx, const Sequences& s, Tensor y, Tensor x,
                           KvCache& cache) const {
  const std::int64_t seq = s.seq, total = cache.length + seq;
  JAMBA_CHECK(s.batch == 1, "generation runs one sequence, got {}", s.batch);
  JAMBA_CHECK(total <= cache.k.dim(0), "cache of {} tokens is full", cache.k.dim(0));
  const Tensor q = ctx.activation(x.dtype(), {seq, num_heads_ * head_dim_});
  const Tensor out = ctx.activation(x.dtype(), {seq, num_heads_ * head_dim_});
  const Tensor lse = ctx.activation(DType::f32, {1, num_heads_, seq});
  project(ctx, s, {q, cache.k.slice(cache.length, seq), cache.v.slice(cache.length, seq)}, x);
  cache.length = total;
  const AttentionShape shape{1, seq, total, num_heads_, num_kv_heads_, head_dim_};
  attention_forward(ctx.stream, ctx.scratch, out, lse, q, cache.k.slice(0, total),
                    cache.v.slice(0, total), {}, shape, scale_);
  linear_forward(ctx.stream, ctx.scratch, y, out, o_->value);
}

KvCache AttentionMixer::make_cache(Arena& arena, DType dtype, std::int64_t capacity) const {
  const std::int64_t width = num_kv_heads_ * head_dim_;
  return {arena.allocate(dtype, {capacity, width}), arena.allocate(dtype, {capacity, width}), 0};
}

}  // namespace jamba

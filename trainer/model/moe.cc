#include "trainer/model/moe.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/rng.h"
#include "kernels/linear/grouped_matmul.h"
#include "kernels/moe/permute.h"
#include "kernels/moe/router.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/pointwise/swiglu.h"

namespace jamba {

namespace {

/// One stream of noise a layer and step.
std::uint64_t noise_stream(std::uint64_t step, std::int64_t layer) {
  return hash_name("router_jitter") ^ (step << 16) ^ static_cast<std::uint64_t>(layer);
}

/// Place of the first token of sequence b among all tokens of the step.
std::int64_t first_row(const TokenPlaces& places, std::int64_t b) {
  return (places.first_sequence + b) * places.seq_len + places.first_token;
}

/// The rows of each expert on this rank.
std::span<const std::int64_t> expert_offsets(const Moe::Saved& s) {
  return s.exchange ? s.exchange->held_offsets() : std::span(s.offsets);
}

/// [experts, 2, ffn, hidden] as a matrix an expert.
Tensor matrices(const Tensor& gate_up) {
  return gate_up.view({gate_up.dim(0), gate_up.dim(1) * gate_up.dim(2), gate_up.dim(3)});
}

/// x itself in float32, or a converted copy in scratch: routers compute in float32 always.
Tensor in_float32(const Context& ctx, Tensor x) {
  if (x.dtype() == DType::f32) return x;
  const Tensor copy = ctx.scratch.allocate(DType::f32, x.dims());
  cast(ctx.stream, copy, x);
  return copy;
}

}  // namespace

RouterStatistics make_statistics(Arena& arena, std::int64_t groups, std::int64_t experts,
                                 std::int64_t tokens_per_group) {
  return {arena.allocate(DType::f32, {groups, experts}),
          arena.allocate(DType::i64, {groups, experts}), arena.allocate(DType::f32, {groups}),
          tokens_per_group};
}

Moe::Moe(const ModelConfig& c, const Parameters& p, const std::string& prefix, std::int64_t layer)
    : num_experts_(c.num_experts),
      top_k_(c.num_experts_per_tok),
      layer_(layer),
      renormalize_(c.renormalize_topk),
      balanced_(c.force_balanced_routing),
      capacity_factor_(c.expert_capacity_factor),
      jitter_(static_cast<float>(c.router_jitter)),
      router_(p.weight(prefix + "router.weight")),
      gate_up_(p.weight(prefix + "experts.gate_up_proj")),
      down_(p.weight(prefix + "experts.down_proj")) {}

std::int64_t Moe::capacity(std::int64_t tokens) const {
  if (capacity_factor_ == 0) return 0;
  const double mean = static_cast<double>(tokens * top_k_) / static_cast<double>(num_experts_);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(capacity_factor_ * mean)));
}

std::int64_t Moe::num_dropped(const Saved& s) const { return s.index.numel() - s.offsets.back(); }

void Moe::jitter(const Context& ctx, const Sequences& seqs, Tensor logits,
                 const Routing& routing) const {
  if (!routing.noise || jitter_ == 0) return;
  const RouterNoise& noise = *routing.noise;
  for (std::int64_t b = 0; b < seqs.batch; ++b) {
    router_jitter(ctx.stream, logits.slice(b * seqs.seq, seqs.seq), jitter_, noise.seed,
                  noise_stream(noise.step, layer_), first_row(routing.places, b));
  }
}

void Moe::route(const Context& ctx, const Sequences& seqs, Tensor x, const Routing& routing,
                Saved& s) const {
  const std::int64_t tokens = x.rows();
  s.logits = ctx.activation(DType::f32, {tokens, num_experts_});
  s.probs = ctx.activation(DType::f32, {tokens, num_experts_});
  s.index = ctx.activation(DType::i32, {tokens, top_k_});
  s.weight = ctx.activation(DType::f32, {tokens, top_k_});
  {
    ArenaScope scope(ctx.scratch);
    linear_forward(ctx.stream, ctx.scratch, s.logits, in_float32(ctx, x), router_->value);
  }
  jitter(ctx, seqs, s.logits, routing);
  router_forward(ctx.stream, s.probs, s.index, s.weight, s.logits, renormalize_);
  for (std::int64_t b = 0; balanced_ && b < seqs.batch; ++b) {
    const std::int64_t begin = b * seqs.seq, n = seqs.seq;
    balance_routing(ctx.stream, s.index.slice(begin, n), s.weight.slice(begin, n),
                    s.probs.slice(begin, n), first_row(routing.places, b), renormalize_);
  }

  zero(ctx.stream, s.statistics.prob_sum);
  zero(ctx.stream, s.statistics.counts);
  zero(ctx.stream, s.statistics.z_sum);
  const std::int64_t n = s.statistics.tokens_per_group;
  for (std::int64_t g = 0; g < s.statistics.groups(); ++g) {
    router_statistics(
        ctx.stream, ctx.scratch, s.statistics.prob_sum.slice(g, 1).view({num_experts_}),
        s.statistics.counts.slice(g, 1).view({num_experts_}), s.statistics.z_sum.slice(g, 1),
        s.probs.slice(g * n, n), s.index.slice(g * n, n), s.logits.slice(g * n, n));
  }
}

void Moe::forward(const Context& ctx, const Sequences& seqs, Tensor y, Tensor x,
                  const RouterStatistics& statistics, const Routing& routing, Saved& s) const {
  const std::int64_t tokens = x.rows(), hidden = x.cols(), copies = tokens * top_k_;
  const std::int64_t ffn = down_->value.dim(2);
  s.statistics = statistics;
  route(ctx, seqs, x, routing, s);

  s.row_of_slot = ctx.activation(DType::i32, {copies});
  s.slot_of_row = ctx.activation(DType::i32, {copies});
  s.offsets.resize(static_cast<std::size_t>(num_experts_) + 1);
  build_permutation(ctx.stream, s.row_of_slot, s.slot_of_row, s.offsets, s.index, capacity(tokens));
  const std::int64_t sent = s.offsets.back();
  s.exchange.reset();
  if (ctx.mesh.ep().size() > 1) {
    s.exchange.emplace(ctx.mesh.ep(), ctx.stream, ctx.activations, s.offsets);
  }
  const std::int64_t rows = s.exchange ? s.exchange->num_held() : sent;
  const auto offsets = expert_offsets(s);

  s.row_weight = ctx.activation(DType::f32, {rows});
  s.gate_up = ctx.activation(x.dtype(), {rows, 2 * ffn});
  s.rows_in = s.exchange ? ctx.activation(x.dtype(), {rows, hidden}) : Tensor();
  ArenaScope scope(ctx.scratch);
  Tensor rows_in = s.rows_in;
  if (s.exchange) {
    s.exchange->dispatch(ctx.stream, ctx.scratch, rows_in, s.row_weight, x, s.weight.view({copies}),
                         s.slot_of_row, top_k_);
  } else {
    rows_in = ctx.temporary(x.dtype(), {rows, hidden});
    permute_forward(ctx.stream, rows_in, x, s.slot_of_row, top_k_);
    permute_weights_forward(ctx.stream, s.row_weight, s.weight, s.slot_of_row);
  }
  const Tensor act = ctx.temporary(x.dtype(), {rows, ffn});
  const Tensor rows_out = ctx.temporary(y.dtype(), {rows, hidden});
  grouped_linear_forward(ctx.stream, ctx.scratch, s.gate_up, rows_in, matrices(gate_up_->value),
                         offsets);
  swiglu_forward(ctx.stream, act, s.gate_up, s.row_weight);
  grouped_linear_forward(ctx.stream, ctx.scratch, rows_out, act, down_->value, offsets);
  Tensor back = rows_out;
  if (s.exchange) {
    back = ctx.temporary(y.dtype(), {sent, hidden});
    s.exchange->combine(ctx.stream, ctx.scratch, back, rows_out);
  }
  permute_backward(ctx.stream, y, back, s.row_of_slot, top_k_);
}

void Moe::backward(const Context& ctx, const Sequences& seqs, Tensor dx, Tensor dy, Tensor x,
                   const RouterLossGradient& loss, const Routing& routing, const Saved& s,
                   const InputGradientReady& dx_ready) const {
  const std::int64_t tokens = dy.rows(), hidden = dy.cols();
  const std::int64_t rows = s.gate_up.rows(), ffn = down_->value.dim(2);
  const std::int64_t sent = s.offsets.back();
  const auto offsets = expert_offsets(s);
  ArenaScope scope(ctx.scratch);
  const Tensor drows = ctx.temporary(dy.dtype(), {rows, hidden});
  if (s.exchange) {
    s.exchange->dispatch_gradient(ctx.stream, ctx.scratch, drows, dy, s.slot_of_row, top_k_);
  } else {
    permute_forward(ctx.stream, drows, dy, s.slot_of_row, top_k_);
  }
  const Tensor dact = ctx.temporary(dy.dtype(), {rows, ffn}), act = dact;
  const Tensor drow_weight = ctx.temporary(DType::f32, {rows});
  grouped_linear_backward_input(ctx.stream, ctx.scratch, dact, drows, down_->value, offsets);
  swiglu_backward(ctx.stream, s.gate_up, act, drow_weight, dact, s.gate_up,
                  s.row_weight);  // both in place
  grouped_linear_backward_weight(ctx.stream, ctx.scratch, down_->grad, drows, act, offsets,
                                 down_->write);
  const Tensor drows_in =
      dx.dtype() == dy.dtype() ? drows : ctx.temporary(dx.dtype(), {rows, hidden});
  grouped_linear_backward_input(ctx.stream, ctx.scratch, drows_in, s.gate_up,
                                matrices(gate_up_->value), offsets);

  const auto differentiate_gate_up = [&](const Tensor& rows_in) {
    grouped_linear_backward_weight(ctx.stream, ctx.scratch, matrices(gate_up_->grad), s.gate_up,
                                   rows_in, offsets, gate_up_->write);
  };
  Tensor back = drows_in, back_weight = drow_weight;
  if (s.exchange) {
    back = ctx.temporary(dx.dtype(), {sent, hidden});
    back_weight = ctx.temporary(DType::f32, {sent});
    auto returning =
        s.exchange->start_combine_gradient(ctx.stream, ctx.scratch, drows_in, drow_weight);
    differentiate_gate_up(s.rows_in);  // while the rows travel
    s.exchange->finish_combine_gradient(ctx.stream, back, back_weight, std::move(returning));
  }
  permute_backward(ctx.stream, dx, back, s.row_of_slot, top_k_);
  const Tensor dweight = ctx.temporary(DType::f32, {tokens, top_k_});
  permute_weights_backward(ctx.stream, dweight, back_weight, s.row_of_slot);
  // Each rank has seen its part of the experts' width.
  ctx.mesh.tp().all_reduce(ctx.stream, dweight);
  router_backward(ctx, seqs, dx, x, dweight, loss, routing, s);
  dx_ready();
  if (s.exchange) return;
  const Tensor rows_in = ctx.temporary(dy.dtype(), {rows, hidden});
  permute_forward(ctx.stream, rows_in, x, s.slot_of_row, top_k_);
  differentiate_gate_up(rows_in);
}

void Moe::router_backward(const Context& ctx, const Sequences& seqs, Tensor dx, Tensor x,
                          Tensor dweight, const RouterLossGradient& loss, const Routing& routing,
                          const Saved& s) const {
  ArenaScope scope(ctx.scratch);
  const Tensor dlogits = ctx.temporary(DType::f32, {x.rows(), num_experts_});
  const std::int64_t n = s.statistics.tokens_per_group;
  for (std::int64_t g = 0; g < s.statistics.groups(); ++g) {
    const Tensor dprobs =
        loss.dprobs.present() ? loss.dprobs.slice(g, 1).view({num_experts_}) : Tensor();
    jamba::router_backward(ctx.stream, dlogits.slice(g * n, n), dweight.slice(g * n, n), dprobs,
                           s.probs.slice(g * n, n), s.index.slice(g * n, n),
                           s.logits.slice(g * n, n), renormalize_, loss.z_scale);
  }
  jitter(ctx, seqs, dlogits, routing);
  linear_backward_weight(ctx.stream, ctx.scratch, router_->grad, dlogits, in_float32(ctx, x),
                         router_->write);
  // The whole gradient of x through the router is on every rank: one of them adds it to its part.
  if (ctx.mesh.tp().rank() > 0) return;
  if (dx.dtype() == DType::f32) {
    linear_backward_input(ctx.stream, ctx.scratch, dx, dlogits, router_->value, Write::accumulate);
    return;
  }
  const Tensor through_router = ctx.scratch.allocate(DType::f32, dx.dims());
  linear_backward_input(ctx.stream, ctx.scratch, through_router, dlogits, router_->value);
  add(ctx.stream, dx, through_router);
}

}  // namespace jamba

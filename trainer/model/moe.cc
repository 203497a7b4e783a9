#include "trainer/model/moe.h"

#include "kernels/core/rng.h"
#include "kernels/linear/grouped_matmul.h"
#include "kernels/moe/permute.h"
#include "kernels/moe/router.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/pointwise/swiglu.h"

namespace jamba {

namespace {

std::span<std::int64_t> as_span(const Tensor& t) {
  return {t.ptr<std::int64_t>(), static_cast<std::size_t>(t.numel())};
}

/// One stream of noise a layer and step.
std::uint64_t noise_stream(std::uint64_t step, std::int64_t layer) {
  return hash_name("router_jitter") ^ (step << 16) ^ static_cast<std::uint64_t>(layer);
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
      jitter_(static_cast<float>(c.router_jitter)),
      router_(p.weight(prefix + "router.weight")),
      gate_up_(p.weight(prefix + "experts.gate_up_proj")),
      down_(p.weight(prefix + "experts.down_proj")) {}

void Moe::route(const Context& ctx, Tensor x, Saved& s) const {
  const std::int64_t tokens = x.rows();
  s.logits = ctx.activation(DType::f32, {tokens, num_experts_});
  s.probs = ctx.activation(DType::f32, {tokens, num_experts_});
  s.index = ctx.activation(DType::i32, {tokens, top_k_});
  s.weight = ctx.activation(DType::f32, {tokens, top_k_});
  {
    ArenaScope scope(ctx.scratch);
    linear_forward(ctx.stream, s.logits, in_float32(ctx, x), router_.value);
  }
  if (s.has_noise) {
    router_jitter(ctx.stream, s.logits, jitter_, s.noise.seed, noise_stream(s.noise.step, layer_),
                  s.noise.first_row);
  }
  router_forward(ctx.stream, s.probs, s.index, s.weight, s.logits, renormalize_);

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

void Moe::forward(const Context& ctx, Tensor y, Tensor x, const RouterStatistics& statistics,
                  const std::optional<RouterNoise>& noise, Saved& s) const {
  const std::int64_t tokens = x.rows(), hidden = x.cols(), rows = tokens * top_k_;
  const std::int64_t ffn = down_.value.dim(2);
  s.statistics = statistics;
  s.has_noise = noise.has_value() && jitter_ > 0;
  if (s.has_noise) s.noise = *noise;
  route(ctx, x, s);

  s.row_of_slot = ctx.activation(DType::i32, {rows});
  s.slot_of_row = ctx.activation(DType::i32, {rows});
  s.offsets = ctx.activation(DType::i64, {num_experts_ + 1});
  build_permutation(ctx.stream, s.row_of_slot, s.slot_of_row, as_span(s.offsets), s.index);

  s.gate_up = ctx.activation(x.dtype(), {rows, 2 * ffn});
  s.rows_out = ctx.activation(x.dtype(), {rows, hidden});
  ArenaScope scope(ctx.scratch);
  const Tensor rows_in = ctx.temporary(x.dtype(), {rows, hidden});
  const Tensor act = ctx.temporary(x.dtype(), {rows, ffn});
  permute_forward(ctx.stream, rows_in, x, s.slot_of_row, top_k_);
  grouped_linear_forward(ctx.stream, s.gate_up, rows_in, gate_up_.value, as_span(s.offsets));
  swiglu_forward(ctx.stream, act, s.gate_up);
  grouped_linear_forward(ctx.stream, s.rows_out, act, down_.value, as_span(s.offsets));
  combine_forward(ctx.stream, y, s.rows_out, s.row_of_slot, s.weight);
}

void Moe::backward(const Context& ctx, Tensor dx, Tensor dy, Tensor x,
                   const RouterLossGradient& loss, const Saved& s) const {
  const std::int64_t tokens = dy.rows(), hidden = dy.cols(), rows = tokens * top_k_;
  const std::int64_t ffn = down_.value.dim(2);
  const auto offsets = as_span(s.offsets);
  ArenaScope scope(ctx.scratch);
  const Tensor dweight = ctx.temporary(DType::f32, {tokens, top_k_});
  const Tensor drows = s.rows_out;  // the combine's backward may overwrite its input
  combine_backward(ctx.stream, drows, dweight, dy, s.rows_out, s.row_of_slot, s.weight);

  const Tensor dact = ctx.temporary(dy.dtype(), {rows, ffn}), act = dact;
  grouped_linear_backward_input(ctx.stream, dact, drows, down_.value, offsets);
  swiglu_backward(ctx.stream, s.gate_up, act, dact, s.gate_up);  // both in place
  grouped_linear_backward_weight(ctx.stream, down_.grad, drows, act, offsets, ctx.weight_gradients);

  const Tensor rows_in = ctx.temporary(dy.dtype(), {rows, hidden});
  permute_forward(ctx.stream, rows_in, x, s.slot_of_row, top_k_);
  grouped_linear_backward_weight(ctx.stream, gate_up_.grad, s.gate_up, rows_in, offsets,
                                 ctx.weight_gradients);
  grouped_linear_backward_input(ctx.stream, drows, s.gate_up, gate_up_.value, offsets);
  permute_backward(ctx.stream, dx, drows, s.row_of_slot, top_k_);
  router_backward(ctx, dx, x, dweight, loss, s);
}

void Moe::router_backward(const Context& ctx, Tensor dx, Tensor x, Tensor dweight,
                          const RouterLossGradient& loss, const Saved& s) const {
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
  if (s.has_noise) {
    router_jitter(ctx.stream, dlogits, jitter_, s.noise.seed, noise_stream(s.noise.step, layer_),
                  s.noise.first_row);
  }
  linear_backward_weight(ctx.stream, router_.grad, dlogits, in_float32(ctx, x),
                         ctx.weight_gradients);
  if (dx.dtype() == DType::f32) {
    linear_backward_input(ctx.stream, dx, dlogits, router_.value, Write::accumulate);
    return;
  }
  const Tensor through_router = ctx.scratch.allocate(DType::f32, dx.dims());
  linear_backward_input(ctx.stream, through_router, dlogits, router_.value);
  add(ctx.stream, dx, through_router);
}

}  // namespace jamba

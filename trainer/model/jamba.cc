#include "trainer/model/jamba.h"

#include "kernels/core/host_view.h"
#include "kernels/embedding/embedding.h"
#include "kernels/moe/balance_loss.h"
#include "kernels/pointwise/copy_blocks.h"
#include "kernels/pointwise/pointwise.h"

namespace jamba {

JambaModel::JambaModel(const ModelConfig& config, Parameters& parameters)
    : JambaModel(config, parameters, {0, config.num_hidden_layers, true, true}) {}

JambaModel::JambaModel(const ModelConfig& config, Parameters& parameters, const Chunk& chunk)
    : config_(config),
      parameters_(parameters),
      chunk_(chunk),
      region_(parameters.mesh().tp(), parameters.sequence_parallel()) {
  if (chunk.embedding) embedding_ = &parameters.entry("model.embed_tokens.weight");
  if (chunk.head) head_.emplace(config, parameters);
  const std::vector<LayerKind> layers = config.layers();
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const LayerKind kind = layers[static_cast<std::size_t>(i)];
    const bool mixture = kind.ffn == FfnKind::moe;
    if (i >= chunk.begin && i < chunk.end) {
      blocks_.emplace_back(config, parameters, kind, i);
      mixture_.push_back(mixture ? num_mixtures_ : -1);
      own_mixtures_ += mixture ? 1 : 0;
    } else if (i < chunk.begin) {
      first_mixture_ += mixture ? 1 : 0;
    }
    num_mixtures_ += mixture ? 1 : 0;
  }
}

bool JambaModel::pools_balance() const {
  return config_.aux_loss == AuxLossKind::pooled && num_mixtures_ > 0;
}

// --- Forward
// --------------------------------------------------------------------------------------

void JambaModel::begin(const Context& ctx, const Microbatch& batch, Saved& saved) const {
  const std::int64_t n = balance_groups(config_, batch.sequences.batch);
  const std::int64_t mixtures = own_mixtures_ + (pools_balance() ? first_mixture_ : 0);
  saved.blocks.resize(blocks_.size());
  saved.hidden.resize(blocks_.size() + 1);
  saved.prob_sum = ctx.activation(DType::f32, {mixtures, n, config_.num_experts});
  saved.counts = ctx.activation(DType::i64, {mixtures, n, config_.num_experts});
  saved.z_sum = ctx.activation(DType::f32, {own_mixtures_, n});
  saved.dprobs = {};
  const std::int64_t rows = region_.rows(batch.sequences.tokens());
  for (Tensor& hidden : saved.hidden) {
    hidden = ctx.activation(parameters_.compute_dtype(), {rows, config_.hidden_size});
  }
}

std::vector<Tensor> JambaModel::inputs(const Saved& saved) const {
  if (chunk_.embedding) return {};
  if (!pools_balance()) return {saved.hidden.front()};
  return {saved.hidden.front(), saved.prob_sum.slice(0, first_mixture_),
          saved.counts.slice(0, first_mixture_)};
}

std::vector<Tensor> JambaModel::outputs(const Saved& saved) const {
  if (chunk_.head) return {};
  if (!pools_balance()) return {saved.hidden.back()};
  return {saved.hidden.back(), saved.prob_sum, saved.counts};
}

RouterStatistics JambaModel::statistics(const Saved& saved, std::size_t layer,
                                        const Sequences& s) const {
  if (mixture_[layer] < 0) return {};
  const std::int64_t n = balance_groups(config_, s.batch), experts = config_.num_experts;
  const std::int64_t own = mixture_[layer] - first_mixture_;
  const std::int64_t among = pools_balance() ? mixture_[layer] : own;
  return {saved.prob_sum.slice(among, 1).view({n, experts}),
          saved.counts.slice(among, 1).view({n, experts}), saved.z_sum.slice(own, 1).view({n}),
          s.tokens() / n};
}

void JambaModel::run_block(const Context& ctx, const Microbatch& batch, std::size_t layer,
                           Saved& saved) const {
  blocks_[layer].forward(ctx, batch.sequences, saved.hidden[layer + 1], saved.hidden[layer],
                         statistics(saved, layer, batch.sequences), batch.routing,
                         saved.blocks[layer]);
}

void JambaModel::forward(const Context& ctx, const Microbatch& batch, Recomputation recomputation,
                         Saved& saved) const {
  const std::int64_t tokens = batch.sequences.tokens();
  if (chunk_.embedding) {
    const Range range(ctx.stream.profile(), "embedding forward");
    parameters_.before(Pass::forward, kEmbeddingPart);
    ArenaScope scope(ctx.scratch);
    const auto partial = region_.partial(ctx.stream, ctx.scratch, saved.hidden[0], tokens);
    const bool wider = partial.tokens.dtype() != parameters_.compute_dtype();
    const Tensor rows =
        wider ? ctx.temporary(parameters_.compute_dtype(), {tokens, config_.hidden_size})
              : partial.tokens;
    embedding_forward(ctx.stream, rows, batch.ids.view({tokens}), embedding_->weight.value,
                      embedding_->shard.offset[0], config_.vocab_size);
    if (wider) cast(ctx.stream, partial.tokens, rows);
    region_.reduce(ctx.stream, saved.hidden[0], partial);
    parameters_.after(Pass::forward, kEmbeddingPart);
  }
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const std::int64_t part = layer_part(chunk_.begin + static_cast<std::int64_t>(layer));
    parameters_.before(Pass::forward, part);
    const Arena::Mark mark = ctx.activations.mark();
    run_block(ctx, batch, layer, saved);
    if (recomputation == Recomputation::on) ctx.activations.release(mark);
    parameters_.after(Pass::forward, part);
  }
}

void JambaModel::logits(const Context& ctx, Tensor logits, Tensor final_normed,
                        const Saved& saved) const {
  parameters_.before(Pass::forward, head_part(config_));
  head_->logits(ctx, logits, final_normed, saved.hidden.back());
  parameters_.after(Pass::forward, head_part(config_));
}

void JambaModel::token_losses(const Context& ctx, Tensor loss, const Microbatch& batch,
                              const Saved& saved) const {
  const Range range(ctx.stream.profile(), "head forward");
  parameters_.before(Pass::forward, head_part(config_));
  head_->loss(ctx, loss, saved.hidden.back(), batch.labels.view({batch.sequences.tokens()}));
  parameters_.after(Pass::forward, head_part(config_));
}

void JambaModel::add_losses(const Context& ctx, const Microbatch& batch, const Saved& saved,
                            LossSums& sums) const {
  ArenaScope scope(ctx.scratch);
  const Tensor loss = ctx.temporary(DType::f32, {batch.sequences.tokens()});
  token_losses(ctx, loss, batch, saved);
  add_token_losses(ctx.stream, loss, batch.labels, sums);
}

// --- Losses
// ---------------------------------------------------------------------------------------

void JambaModel::add_token_losses(Stream& stream, const Tensor& loss, const Tensor& labels,
                                  LossSums& sums) const {
  if (!counts_losses()) return;
  const HostView losses(stream, loss, HostAccess::read), ids(stream, labels, HostAccess::read);
  for (std::int64_t t = 0; t < loss.numel(); ++t) {
    if (ids.ptr<std::int32_t>()[t] < 0) continue;
    sums.nll.add(static_cast<double>(losses.ptr<float>()[t]));
    ++sums.targets;
  }
}

/// The auxiliary loss and its gradient towards the router's probabilities: for each mixture of its
/// own, or, pooled over all layers, once on the last chunk, which has everybody's statistics.
void JambaModel::balance(const Context& ctx, const Microbatch& batch, const LossScale& scale,
                         Saved& saved, LossSums& sums) const {
  if (config_.aux_loss == AuxLossKind::none || saved.prob_sum.dim(0) == 0) return;
  const bool pooled = pools_balance();
  if (pooled && !chunk_.head) return;
  const Sequences& s = batch.sequences;
  const std::int64_t n = balance_groups(config_, s.batch), experts = config_.num_experts;
  const std::int64_t layers = saved.prob_sum.dim(0), products = pooled ? 1 : layers;
  Communicator& cp = ctx.mesh.cp();
  const Tensor dprobs = ctx.activation(DType::f32, {layers, n, experts});
  saved.dprobs = dprobs.slice(0, products);

  ArenaScope scope(ctx.scratch);
  Tensor prob_sum = saved.prob_sum, counts = saved.counts;
  if (cp.size() > 1) {  // copies: a rank's own counts stay for the log
    prob_sum = ctx.scratch.allocate(DType::f32, saved.prob_sum.dims());
    counts = ctx.scratch.allocate(DType::i64, saved.counts.dims());
    const BlockCount all{1, 1, counts.numel()};
    copy_blocks(ctx.stream, prob_sum, {}, saved.prob_sum, {}, all);
    copy_blocks(ctx.stream, counts, {}, saved.counts, {}, all);
    cp.all_reduce(ctx.stream, prob_sum);
    cp.all_reduce(ctx.stream, counts);
  }
  const Tensor aux = ctx.temporary(DType::f32, {products, n});
  const double sequences = static_cast<double>(s.batch) / static_cast<double>(n);
  const double all_products = pooled ? 1 : static_cast<double>(num_mixtures_);
  balance_loss(
      ctx.stream, aux, dprobs, prob_sum, counts, s.batch * s.whole_seq / n,
      pooled ? BalancePooling::all_layers : BalancePooling::per_layer,
      static_cast<float>(config_.router_aux_loss_coef * scale.sequence * sequences / all_products));
  if (!counts_losses() || cp.rank() > 0) return;
  const HostView values(ctx.stream, aux, HostAccess::read);
  for (std::int64_t i = 0; i < aux.numel(); ++i) {
    sums.aux.add(static_cast<double>(values.ptr<float>()[i]));
  }
}

/// Of the layers of this chunk and the tokens of this rank.
void JambaModel::add_layer_losses(const Context& ctx, const Saved& saved, LossSums& sums) const {
  if (counts_losses()) {
    const HostView z_sum(ctx.stream, saved.z_sum, HostAccess::read);
    for (std::int64_t i = 0; i < saved.z_sum.numel(); ++i) {
      sums.z.add(static_cast<double>(z_sum.ptr<float>()[i]));
    }
  }
  if (config_.activation_loss_coef == 0 || !(counts_losses() || region_.splits_rows())) return;
  for (std::size_t i = 1; i < saved.hidden.size(); ++i) {
    const Tensor& h = saved.hidden[i];
    add_squares(ctx.stream, ctx.scratch, sums.activation, h.view({h.numel()}));
  }
}

// --- Backward
// -------------------------------------------------------------------------------------

Tensor JambaModel::begin_backward(const Context& ctx, const Microbatch& batch, Saved& saved) const {
  const Tensor& hidden = saved.hidden.back();
  if (pools_balance() && !chunk_.head) {
    const std::int64_t n = balance_groups(config_, batch.sequences.batch);
    saved.dprobs = ctx.activation(DType::f32, {1, n, config_.num_experts});
  }
  return ctx.activations.allocate(hidden.dtype(), hidden.dims());
}

std::vector<Tensor> JambaModel::output_gradients(const Saved& saved, Tensor dx) const {
  if (chunk_.head) return {};
  if (!pools_balance()) return {dx};
  return {dx, saved.dprobs};
}

std::vector<Tensor> JambaModel::input_gradients(const Saved& saved, Tensor dx) const {
  if (chunk_.embedding) return {};
  if (!pools_balance()) return {dx};
  return {dx, saved.dprobs};
}

void JambaModel::head_backward(const Context& ctx, const Microbatch& batch, const LossScale& scale,
                               Tensor dx, Saved& saved, LossSums& sums) const {
  const std::int64_t tokens = batch.sequences.tokens();
  const Tensor labels = batch.labels.view({tokens});
  const Range range(ctx.stream.profile(), "head backward");
  parameters_.before(Pass::backward, head_part(config_));
  ArenaScope scope(ctx.scratch);
  const Tensor loss = ctx.temporary(DType::f32, {tokens});
  head_->loss_and_gradient(ctx, loss, dx, saved.hidden.back(), labels,
                           static_cast<float>(scale.token));
  parameters_.after(Pass::backward, head_part(config_));
  add_token_losses(ctx.stream, loss, labels, sums);
}

RouterLossGradient JambaModel::router_gradient(const Saved& saved, std::size_t layer,
                                               const Sequences& s, const LossScale& scale) const {
  RouterLossGradient loss;
  if (mixture_[layer] < 0) return loss;
  if (saved.dprobs.present()) {
    const std::int64_t own = pools_balance() ? 0 : mixture_[layer] - first_mixture_;
    loss.dprobs =
        saved.dprobs.slice(own, 1).view({balance_groups(config_, s.batch), config_.num_experts});
  }
  const auto rows = static_cast<double>(num_mixtures_ * s.whole_seq);
  loss.z_scale = static_cast<float>(config_.router_z_loss_coef * scale.sequence / rows);
  return loss;
}

void JambaModel::backward(const Context& ctx, const Microbatch& batch, const LossScale& scale,
                          Tensor dx, Recomputation recomputation, Saved& saved,
                          LossSums& sums) const {
  const Sequences& s = batch.sequences;
  const double activation_scale =
      2 * config_.activation_loss_coef * scale.sequence /
      static_cast<double>(config_.num_hidden_layers * s.whole_seq * config_.hidden_size);
  balance(ctx, batch, scale, saved, sums);
  add_layer_losses(ctx, saved, sums);

  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    const std::int64_t part = layer_part(chunk_.begin + static_cast<std::int64_t>(layer));
    parameters_.before(Pass::backward, part);
    if (activation_scale != 0) {
      add_scaled(ctx.stream, dx, saved.hidden[layer + 1], static_cast<float>(activation_scale));
    }
    const Arena::Mark mark = ctx.activations.mark();
    if (recomputation == Recomputation::on) run_block(ctx, batch, layer, saved);
    blocks_[layer].backward(ctx, s, dx, router_gradient(saved, layer, s, scale), batch.routing,
                            saved.blocks[layer]);
    if (recomputation == Recomputation::on) ctx.activations.release(mark);
    parameters_.after(Pass::backward, part);
  }
  if (!chunk_.embedding) return;
  const Range range(ctx.stream.profile(), "embedding backward");
  parameters_.before(Pass::backward, kEmbeddingPart);
  ArenaScope scope(ctx.scratch);
  embedding_backward(ctx.stream, ctx.scratch, embedding_->weight.grad,
                     region_.gather(ctx.stream, ctx.scratch, dx, s.tokens()),
                     batch.ids.view({s.tokens()}), embedding_->shard.offset[0], config_.vocab_size,
                     config_.pad_token_id);
  parameters_.after(Pass::backward, kEmbeddingPart);
}

// --- Figures
// --------------------------------------------------------------------------------------

void JambaModel::add_expert_counts(Stream& stream, const Saved& saved,
                                   std::span<std::int64_t> counts) const {
  if (own_mixtures_ == 0) return;
  const std::int64_t experts = config_.num_experts;
  const std::int64_t carried = saved.counts.dim(0) - own_mixtures_;
  // [own mixtures, groups, experts]
  const HostView chosen(stream, saved.counts.slice(carried, own_mixtures_), HostAccess::read);
  const std::int64_t each = chosen.tensor().numel() / own_mixtures_;
  for (std::int64_t i = 0; i < chosen.tensor().numel(); ++i) {
    counts[static_cast<std::size_t>((first_mixture_ + i / each) * experts + i % experts)] +=
        chosen.ptr<std::int64_t>()[i];
  }
}

std::int64_t JambaModel::num_dropped(const Saved& saved) const {
  std::int64_t dropped = 0;
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    dropped += blocks_[layer].num_dropped(saved.blocks[layer]);
  }
  return dropped;
}

// --- Generation
// -----------------------------------------------------------------------------------

std::vector<MixerState> JambaModel::make_states(Stream& stream, Arena& arena,
                                                std::int64_t capacity) const {
  std::vector<MixerState> states;
  for (const Block& block : blocks_) {
    states.push_back(block.make_state(stream, arena, parameters_.compute_dtype(), capacity));
  }
  return states;
}

void JambaModel::infer(const Context& ctx, Tensor logits, const Microbatch& batch,
                       std::vector<MixerState>& states) const {
  JAMBA_CHECK(ctx.mesh.world().size() == 1, "generation runs on one rank");
  const std::int64_t tokens = batch.sequences.tokens();
  const auto hidden = [&] {
    return ctx.activation(parameters_.compute_dtype(), {tokens, config_.hidden_size});
  };
  Tensor x = hidden();
  embedding_forward(ctx.stream, x, batch.ids.view({tokens}), embedding_->weight.value, 0,
                    config_.vocab_size);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Tensor y = hidden();
    blocks_[layer].infer(ctx, batch.sequences, y, x, states[layer]);
    x = y;
  }
  head_->logits(ctx, logits, hidden(), x);
}

}  // namespace jamba

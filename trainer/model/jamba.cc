#include "trainer/model/jamba.h"

#include "kernels/embedding/embedding.h"
#include "kernels/moe/balance_loss.h"
#include "kernels/pointwise/pointwise.h"

namespace jamba {

LossSums& LossSums::operator+=(const LossSums& other) {
  nll += other.nll;
  targets += other.targets;
  aux += other.aux;
  z += other.z;
  activation += other.activation;
  return *this;
}

JambaModel::JambaModel(const ModelConfig& config, const Parameters& parameters)
    : config_(config),
      parameters_(parameters),
      embedding_(parameters.weight("model.embed_tokens.weight")),
      head_(config, parameters) {
  const std::vector<LayerKind> layers = config.layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    blocks_.emplace_back(config, parameters, layers[i], static_cast<std::int64_t>(i));
    moe_index_.push_back(blocks_.back().has_experts() ? num_moe_layers_++ : -1);
  }
}

JambaModel::Saved JambaModel::make_saved() const {
  Saved saved;
  saved.blocks.resize(blocks_.size());
  saved.hidden.resize(blocks_.size() + 1);
  return saved;
}

std::int64_t JambaModel::groups(const Sequences& s) const {
  return config_.aux_loss_scope == AuxLossScope::sequence ? s.batch : 1;
}

RouterStatistics JambaModel::statistics(const Saved& saved, std::int64_t moe_layer,
                                        const Sequences& s) const {
  if (moe_layer < 0) return {};
  const std::int64_t n = groups(s), experts = config_.num_experts;
  return {saved.prob_sum.slice(moe_layer, 1).view({n, experts}),
          saved.counts.slice(moe_layer, 1).view({n, experts}),
          saved.z_sum.slice(moe_layer, 1).view({n}), s.tokens() / n};
}

void JambaModel::run_block(const Context& ctx, const Microbatch& batch, std::size_t layer,
                           const std::optional<RouterNoise>& noise, Tensor y, Saved& saved) const {
  blocks_[layer].forward(ctx, batch.sequences, y, saved.hidden[layer],
                         statistics(saved, moe_index_[layer], batch.sequences), noise,
                         saved.blocks[layer]);
}

void JambaModel::forward(const Context& ctx, const Microbatch& batch,
                         const std::optional<RouterNoise>& noise, Recomputation recomputation,
                         Saved& saved) const {
  const std::int64_t tokens = batch.sequences.tokens(), n = groups(batch.sequences);
  saved.prob_sum = ctx.activation(DType::f32, {num_moe_layers_, n, config_.num_experts});
  saved.counts = ctx.activation(DType::i64, {num_moe_layers_, n, config_.num_experts});
  saved.z_sum = ctx.activation(DType::f32, {num_moe_layers_, n});
  for (Tensor& hidden : saved.hidden) {
    hidden = ctx.activation(parameters_.compute_dtype(), {tokens, config_.hidden_size});
  }
  embedding_forward(ctx.stream, saved.hidden[0], batch.ids.view({tokens}), embedding_.value, 0,
                    config_.vocab_size);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Arena::Mark mark = ctx.activations.mark();
    run_block(ctx, batch, layer, noise, saved.hidden[layer + 1], saved);
    if (recomputation == Recomputation::on) ctx.activations.release(mark);
  }
}

void JambaModel::logits(const Context& ctx, Tensor logits, Tensor final_normed,
                        const Saved& saved) const {
  head_.logits(ctx, logits, final_normed, saved.hidden.back());
}

namespace {

/// Adds what a microbatch's token losses sum to. In double and in order, for any thread count.
void add_token_losses(LossSums& sums, const Tensor& loss, const Tensor& labels) {
  const float* l = loss.ptr<float>();
  const std::int32_t* label = labels.ptr<std::int32_t>();
  for (std::int64_t t = 0; t < loss.numel(); ++t) {
    sums.nll += static_cast<double>(l[t]);
    sums.targets += label[t] >= 0 ? 1 : 0;
  }
}

}  // namespace

void JambaModel::auxiliary_losses(const Context& ctx, const Sequences& s, const Saved& saved,
                                  Tensor dprobs, float dprobs_scale, LossSums& sums) const {
  if (num_moe_layers_ == 0) return;
  const std::int64_t n = groups(s), per_group = s.tokens() / n;
  const double sequences_per_group = static_cast<double>(s.batch) / static_cast<double>(n);
  ArenaScope scope(ctx.scratch);
  if (config_.aux_loss != AuxLossKind::none) {
    const Tensor aux = ctx.temporary(DType::f32, {n});
    if (dprobs.absent()) {
      dprobs = ctx.temporary(DType::f32, {num_moe_layers_, n, config_.num_experts});
    }
    const auto pooling = config_.aux_loss == AuxLossKind::pooled ? BalancePooling::all_layers
                                                                 : BalancePooling::per_layer;
    balance_loss(ctx.stream, aux, dprobs, saved.prob_sum, saved.counts, per_group, pooling,
                 dprobs_scale * static_cast<float>(sequences_per_group));
    for (std::int64_t g = 0; g < n; ++g) {
      sums.aux += sequences_per_group * static_cast<double>(aux.ptr<float>()[g]);
    }
  }
  const double rows = static_cast<double>(num_moe_layers_ * s.seq);
  for (std::int64_t i = 0; i < saved.z_sum.numel(); ++i) {
    sums.z += static_cast<double>(saved.z_sum.ptr<float>()[i]) / rows;
  }
}

double JambaModel::activation_square(const Context& ctx, const Sequences& s,
                                     const Saved& saved) const {
  if (config_.activation_loss_coef == 0) return 0;
  double squares = 0;
  for (std::size_t i = 1; i < saved.hidden.size(); ++i) {
    squares += sum_of_squares(ctx.stream, ctx.scratch, saved.hidden[i]);
  }
  return squares / static_cast<double>(config_.num_hidden_layers * s.seq * config_.hidden_size);
}

void JambaModel::token_losses(const Context& ctx, Tensor loss, const Microbatch& batch,
                              const Saved& saved) const {
  head_.loss(ctx, loss, saved.hidden.back(), batch.labels.view({batch.sequences.tokens()}));
}

LossSums JambaModel::loss(const Context& ctx, const Microbatch& batch, const Saved& saved) const {
  const std::int64_t tokens = batch.sequences.tokens();
  LossSums sums;
  ArenaScope scope(ctx.scratch);
  const Tensor loss = ctx.temporary(DType::f32, {tokens});
  token_losses(ctx, loss, batch, saved);
  add_token_losses(sums, loss, batch.labels.view({tokens}));
  auxiliary_losses(ctx, batch.sequences, saved, {}, 0, sums);
  sums.activation = activation_square(ctx, batch.sequences, saved);
  return sums;
}

LossSums JambaModel::train(const Context& ctx, const Microbatch& batch, const LossScale& scale,
                           const std::optional<RouterNoise>& noise, Recomputation recomputation,
                           Saved& saved, const std::function<void(std::int64_t)>& on_ready) const {
  const std::int64_t tokens = batch.sequences.tokens();
  forward(ctx, batch, noise, recomputation, saved);
  LossSums sums;
  const Tensor dx = ctx.activations.allocate(saved.hidden[0].dtype(), saved.hidden[0].dims());
  const Tensor labels = batch.labels.view({tokens});
  {
    ArenaScope scope(ctx.scratch);
    const Tensor loss = ctx.temporary(DType::f32, {tokens});
    head_.loss_and_gradient(ctx, loss, dx, saved.hidden.back(), labels,
                            static_cast<float>(scale.token));
    add_token_losses(sums, loss, labels);
  }
  sums.activation = activation_square(ctx, batch.sequences, saved);
  backward(ctx, batch, scale, dx, noise, recomputation, saved, sums, on_ready);
  return sums;
}

void JambaModel::backward(const Context& ctx, const Microbatch& batch, const LossScale& scale,
                          Tensor dx, const std::optional<RouterNoise>& noise,
                          Recomputation recomputation, Saved& saved, LossSums& sums,
                          const std::function<void(std::int64_t)>& on_ready) const {
  const Sequences& s = batch.sequences;
  const double aux_scale = config_.router_aux_loss_coef * scale.sequence;
  const double moe_rows = static_cast<double>(num_moe_layers_ * s.seq);
  const double activation_scale =
      2 * config_.activation_loss_coef * scale.sequence /
      static_cast<double>(config_.num_hidden_layers * s.seq * config_.hidden_size);
  Tensor dprobs;
  if (config_.aux_loss != AuxLossKind::none && num_moe_layers_ > 0) {
    dprobs = ctx.activation(DType::f32, {num_moe_layers_, groups(s), config_.num_experts});
  }
  auxiliary_losses(ctx, s, saved, dprobs, static_cast<float>(aux_scale), sums);

  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    if (activation_scale != 0) {
      add_scaled(ctx.stream, dx, saved.hidden[layer + 1], static_cast<float>(activation_scale));
    }
    const Arena::Mark mark = ctx.activations.mark();
    if (recomputation == Recomputation::on) {
      run_block(ctx, batch, layer, noise, saved.hidden[layer + 1], saved);
    }
    RouterLossGradient loss;
    if (moe_index_[layer] >= 0) {
      if (dprobs.present()) {
        loss.dprobs = dprobs.slice(moe_index_[layer], 1).view({groups(s), config_.num_experts});
      }
      loss.z_scale = static_cast<float>(config_.router_z_loss_coef * scale.sequence / moe_rows);
    }
    blocks_[layer].backward(ctx, s, dx, loss, saved.blocks[layer]);
    if (recomputation == Recomputation::on) ctx.activations.release(mark);
    on_ready(blocks_[layer].parameters_begin());
  }
  embedding_backward(ctx.stream, ctx.scratch, embedding_.grad, dx, batch.ids.view({s.tokens()}), 0,
                     config_.vocab_size, config_.pad_token_id);
  on_ready(0);
}

void JambaModel::add_expert_counts(const Saved& saved, std::span<std::int64_t> counts) const {
  const std::int64_t experts = config_.num_experts;
  for (std::int64_t layer = 0; layer < num_moe_layers_; ++layer) {
    const Tensor chosen = saved.counts.slice(layer, 1);  // [1, groups, experts]
    for (std::int64_t i = 0; i < chosen.numel(); ++i) {
      counts[static_cast<std::size_t>(layer * experts + i % experts)] +=
          chosen.ptr<std::int64_t>()[i];
    }
  }
}

void JambaModel::start_gradients(Stream& stream) const {
  for (const Parameters::Entry& entry : parameters_.entries()) {
    if (!entry.spec.gradient_overwritten) zero(stream, entry.grad);
  }
}

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
  const std::int64_t tokens = batch.sequences.tokens();
  const auto hidden = [&] {
    return ctx.activation(parameters_.compute_dtype(), {tokens, config_.hidden_size});
  };
  Tensor x = hidden();
  embedding_forward(ctx.stream, x, batch.ids.view({tokens}), embedding_.value, 0,
                    config_.vocab_size);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Tensor y = hidden();
    blocks_[layer].infer(ctx, batch.sequences, y, x, states[layer]);
    x = y;
  }
  head_.logits(ctx, logits, hidden(), x);
}

}  // namespace jamba

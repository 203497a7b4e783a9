#include "trainer/verify/verify.h"

#include <cmath>

#include "kernels/pointwise/pointwise.h"
#include "trainer/checkpoint/hf_names.h"
#include "trainer/model/masters.h"
#include "trainer/model/workspace.h"
#include "trainer/optim/adamw_optimizer.h"
#include "trainer/optim/schedule.h"

namespace jamba {

namespace {

/// Adds "prefix" + Hub name for each Hub tensor of a per-parameter quantity.
template <class TensorOf>
void add_by_hub_name(Comparison& comparison, const Fixture& fixture, const std::string& prefix,
                     double tolerance, TensorOf&& tensor_of) {
  for (const HfTensor& hf : hf_tensors(fixture.config())) {
    const std::string name = fixture_name(fixture.kind(), hf.name);
    if (name.empty()) continue;
    const Tensor all = tensor_of(hf.param);
    comparison.add(prefix + name, hf.shape, all.view({all.numel()}).slice(hf.begin, hf.count),
                   tolerance);
  }
}

/// A batch read from the fixture's inputs.
class FixtureBatch {
 public:
  FixtureBatch(std::int64_t batch, std::int64_t seq)
      : buffer_(3 * batch * seq * dtype_bytes(DType::i32)) {
    auto* data = static_cast<std::int32_t*>(buffer_.data());
    batch_.ids = Tensor(data, DType::i32, {batch, seq});
    batch_.labels = Tensor(data + batch * seq, DType::i32, {batch, seq});
    batch_.sequences = {batch, seq, {}, Tensor(data + 2 * batch * seq, DType::i32, {batch * seq})};
    for (std::int64_t t = 0; t < batch * seq; ++t) {
      batch_.sequences.positions.ptr<std::int32_t>()[t] = static_cast<std::int32_t>(t % seq);
    }
  }

  const Microbatch& batch() const { return batch_; }
  LossScale scale() const {
    double targets = 0;
    for (std::int64_t t = 0; t < batch_.labels.numel(); ++t) {
      targets += batch_.labels.ptr<std::int32_t>()[t] >= 0 ? 1 : 0;
    }
    return {1.0 / targets, 1.0 / static_cast<double>(batch_.sequences.batch)};
  }
  /// Labels from ids: each position predicts the next token of its sequence.
  void shift_labels() const {
    const std::int64_t seq = batch_.sequences.seq;
    const std::int32_t* ids = batch_.ids.ptr<std::int32_t>();
    for (std::int64_t t = 0; t < batch_.ids.numel(); ++t) {
      batch_.labels.ptr<std::int32_t>()[t] = t % seq + 1 < seq ? ids[t + 1] : -100;
    }
  }

 private:
  Buffer buffer_;
  Microbatch batch_;
};

struct Losses {
  double lm, aux, total;
};

Losses mean_losses(const LossSums& sums, const LossScale& scale, const ModelConfig& config) {
  Losses l{sums.nll * scale.token, sums.aux * scale.sequence, 0};
  l.total = l.lm + config.router_aux_loss_coef * l.aux;
  return l;
}

void ignore_readiness(std::int64_t) {}

void verify_model(Stream& stream, const Fixture& fixture, const VerifyOptions& options,
                  Comparison& comparison) {
  const ModelConfig& config = fixture.config();
  const Parameters parameters(config, options.dtype, Gradients::allocate);
  fixture.load_weights(stream, parameters);
  const JambaModel model(config, parameters);
  Workspace workspace(stream);
  workspace.activations().set_poison(true);
  workspace.scratch().set_poison(true);
  const Context ctx = workspace.context(Write::overwrite);
  JambaModel::Saved saved = model.make_saved();

  const std::vector<std::int64_t> shape = fixture.input_shape("input_ids");
  const std::int64_t batch = shape.at(0), seq = shape.at(1), tokens = batch * seq;
  const FixtureBatch input(batch, seq);
  fixture.read_tokens("input_ids", 0, input.batch().ids);
  fixture.read_tokens("shift_labels", 0, input.batch().labels);

  model.forward(ctx, input.batch(), std::nullopt, Recomputation::off, saved);
  const Tensor logits = ctx.activation(options.dtype, {tokens, config.vocab_size});
  const Tensor normed = ctx.activation(options.dtype, {tokens, config.hidden_size});
  model.logits(ctx, logits, normed, saved);
  comparison.add("logits", {batch, seq, config.vocab_size}, logits, options.tolerance);
  comparison.add("final_norm_out", {batch, seq, config.hidden_size}, normed, options.tolerance);
  for (std::size_t i = 0; i < saved.hidden.size(); ++i) {
    comparison.add(fmt::format("hidden_states.{}", i), {batch, seq, config.hidden_size},
                   saved.hidden[i], options.tolerance);
  }
  for (std::size_t i = 0; i < saved.blocks.size(); ++i) {
    if (const auto* moe = std::get_if<Moe::Saved>(&saved.blocks[i].ffn)) {
      comparison.add(fmt::format("router_logits.{}", i), {tokens, config.num_experts}, moe->logits,
                     options.tolerance);
    }
  }

  workspace.reset();
  model.start_gradients(stream);
  const LossScale scale = input.scale();
  const LossSums sums = model.train(ctx, input.batch(), scale, std::nullopt, options.recomputation,
                                    saved, ignore_readiness);
  const Losses losses = mean_losses(sums, scale, config);
  comparison.add_scalar("loss", losses.total, options.tolerance);
  comparison.add_scalar("lm_loss", losses.lm, options.tolerance);
  comparison.add_scalar("aux_loss", losses.aux, options.tolerance);
  add_by_hub_name(comparison, fixture, "grad.", options.tolerance,
                  [&](const std::string& name) { return parameters.entry(name).grad; });
}

OptimizerConfig optimizer_config(const nlohmann::json& o) {
  OptimizerConfig c;
  c.lr = o.at("lr");
  c.min_lr = o.at("min_lr");
  c.beta1 = o.at("beta1");
  c.beta2 = o.at("beta2");
  c.eps = o.at("eps");
  c.weight_decay = o.at("weight_decay");
  c.grad_clip = o.at("grad_clip");
  c.warmup_steps = o.at("warmup");
  c.schedule = ScheduleKind::cosine;
  return c;
}

void verify_trajectory(Stream& stream, const Fixture& fixture, const VerifyOptions& options,
                       Comparison& comparison) {
  const ModelConfig& config = fixture.config();
  const nlohmann::json& optimiser = fixture.meta().at("optimiser");
  const OptimizerConfig optim = optimizer_config(optimiser);
  const bool by_rank = fixture.meta().at("no_decay") == "parameters with ndim==1";
  const Parameters parameters(config, options.dtype, Gradients::allocate);
  fixture.load_weights(stream, parameters);
  const JambaModel model(config, parameters);
  const AdamWOptimizer adamw(parameters, optim, by_rank ? DecayRule::by_rank : DecayRule::standard);
  Workspace workspace(stream);
  const Context ctx = workspace.context(Write::overwrite);
  JambaModel::Saved saved = model.make_saved();
  const std::int64_t batch = optimiser.at("batch"), seq = optimiser.at("seq");
  const std::int64_t num_batches = optimiser.at("n_batches"), steps = optimiser.at("steps");
  const FixtureBatch input(batch, seq);

  std::vector<double> total, lm, aux, norms, rates;
  for (std::int64_t step = 0; step < steps; ++step) {
    fixture.read_tokens("input_ids", step % num_batches * batch * seq, input.batch().ids);
    input.shift_labels();
    workspace.reset();
    model.start_gradients(stream);
    const LossScale scale = input.scale();
    const Losses losses = mean_losses(model.train(ctx, input.batch(), scale, std::nullopt,
                                                  options.recomputation, saved, ignore_readiness),
                                      scale, config);
    const double norm =
        std::sqrt(sum_of_squares(stream, workspace.scratch(), parameters.flat_gradients()));
    const double rate = learning_rate(optim, step, steps);
    adamw.step(stream, rate, step + 1, clip_factor(norm, optim.grad_clip));
    total.push_back(losses.total);
    lm.push_back(losses.lm);
    aux.push_back(losses.aux);
    norms.push_back(norm);
    rates.push_back(rate);
    if (step == 0) {
      const Masters masters(stream, parameters);
      add_by_hub_name(comparison, fixture, "after_step_1.", options.tolerance,
                      [&](const std::string& name) { return masters[name]; });
    }
  }
  for (std::size_t i = 0; i < total.size(); ++i) {
    comparison.expect_close("loss", static_cast<std::int64_t>(i), total[i], options.tolerance);
  }
  comparison.add_vector("loss", total, options.tolerance);
  comparison.add_vector("lm_loss", lm, options.tolerance);
  comparison.add_vector("aux_loss", aux, options.tolerance);
  comparison.add_vector("grad_norm", norms, options.tolerance);
  comparison.add_vector("lr", rates, options.tolerance);
  const Masters masters(stream, parameters);
  add_by_hub_name(comparison, fixture, "final.", options.tolerance,
                  [&](const std::string& name) { return masters[name]; });
}

void verify_mixer(Stream& stream, const Fixture& fixture, const VerifyOptions& options,
                  Comparison& comparison) {
  const ModelConfig& config = fixture.config();
  const Parameters parameters(config, DType::f32, Gradients::allocate);
  fixture.load_weights(stream, parameters);
  const MambaMixer mixer(config, parameters, "model.layers.0.mamba.");
  Workspace workspace(stream);
  const Context ctx = workspace.context();
  const std::vector<std::int64_t> shape = fixture.input_shape("x");
  const Sequences sequences{shape.at(0), shape.at(1), {}, {}};
  const auto make = [&] {
    return ctx.activation(DType::f32, {sequences.tokens(), config.hidden_size});
  };
  const Tensor x = make(), y = make(), dx = make(), dy = make();
  fixture.inputs().read(*fixture.inputs().find("x"), x);
  fixture.inputs().read(*fixture.inputs().find("dy"), dy);
  MambaMixer::Saved saved;
  mixer.forward(ctx, sequences, y, x, saved);
  mixer.backward(ctx, sequences, dx, dy, x, saved);
  comparison.add("out", shape, y, options.tolerance);
  comparison.add("grad.x", shape, dx, options.tolerance);
  for (const HfTensor& hf : hf_tensors(config)) {
    if (hf.name.find(".mamba.") == std::string::npos) continue;
    const Tensor grad = parameters.entry(hf.param).grad;
    comparison.add("grad." + fixture_name(fixture.kind(), hf.name), hf.shape,
                   grad.view({grad.numel()}).slice(hf.begin, hf.count), options.tolerance);
  }
}

}  // namespace

void verify(Stream& stream, const Fixture& fixture, const VerifyOptions& options,
            Comparison& comparison) {
  switch (fixture.kind()) {
    case FixtureKind::model:
      return verify_model(stream, fixture, options, comparison);
    case FixtureKind::trajectory:
      return verify_trajectory(stream, fixture, options, comparison);
    case FixtureKind::mixer:
      return verify_mixer(stream, fixture, options, comparison);
  }
}

}  // namespace jamba

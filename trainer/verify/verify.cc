#include "trainer/verify/verify.h"

#include <algorithm>

#include "kernels/core/host_view.h"
#include "kernels/pointwise/pointwise.h"
#include "trainer/checkpoint/agreed.h"
#include "trainer/checkpoint/hf_names.h"
#include "trainer/model/workspace.h"
#include "trainer/parallel_rules.h"
#include "trainer/train_step.h"
#include "trainer/verify/gather.h"

namespace jamba {

namespace {

/// Adds "prefix" + Hub name for each Hub tensor of a per-parameter quantity.
void add_by_hub_name(Comparison& comparison, const Fixture& fixture, const std::string& prefix,
                     double tolerance, Parameters& parameters, const StretchValues& values) {
  const std::vector<HfTensor> tensors = hf_tensors(fixture.config());
  for (const ParameterSpec& spec : parameter_specs(fixture.config())) {
    const LogicalTensor whole = gather_parameter(parameters, spec, values);
    const Tensor flat = whole.tensor().view({spec.numel()});
    for (const HfTensor& hf : tensors) {
      const std::string name = fixture_name(fixture.kind(), hf.name);
      if (hf.param != spec.name || name.empty()) continue;
      comparison.add(prefix + name, hf.shape, flat.slice(hf.begin, hf.count), tolerance);
    }
  }
}

/// The fixture's batch as training data: every microbatch of a step is the same.
class FixtureTokens : public TokenSource {
 public:
  FixtureTokens(const Fixture& fixture, std::int64_t num_batches)
      : fixture_(fixture), num_batches_(num_batches) {}

  std::int64_t fill(std::int64_t step, std::int64_t, const Batch& out) override {
    const std::int64_t seq = out.ids.dim(1), begin = step % num_batches_ * out.ids.numel();
    fixture_.read_tokens("input_ids", begin, out.ids);
    std::fill_n(out.doc_start.ptr<std::int32_t>(), out.doc_start.numel(), 0);
    std::int32_t* labels = out.labels.ptr<std::int32_t>();
    if (fixture_.inputs().find("shift_labels") != nullptr) {
      fixture_.read_tokens("shift_labels", begin, out.labels);
    } else {  // each position predicts the next token of its sequence
      for (std::int64_t t = 0; t < out.ids.numel(); ++t) {
        labels[t] = t % seq + 1 < seq ? out.ids.ptr<std::int32_t>()[t + 1] : -100;
      }
    }
    return std::count_if(labels, labels + out.labels.numel(),
                         [](std::int32_t label) { return label >= 0; });
  }

 private:
  const Fixture& fixture_;
  std::int64_t num_batches_;
};

/// The fixture as a run on this mesh.
RunConfig run_config(const Fixture& fixture, const VerifyOptions& options, Communicator& world,
                     std::int64_t batch, std::int64_t seq) {
  RunConfig c;
  c.model = fixture.config();
  c.data.seq_len = seq;
  c.train.micro_batch_size = batch;
  c.train.dtype = options.dtype;
  c.train.recompute = options.recompute;
  c.train.steps = 1;
  c.parallel = options.parallel;
  const std::int64_t inner = c.parallel.tp * c.parallel.pp * c.parallel.cp;
  c.train.global_batch_size = batch * std::max<std::int64_t>(world.size() / inner, 1);
  agreed(world, [&] { expect_sound_parallel(c, world.size()); });
  return c;
}

/// Place in [batch * seq] of a row of this rank: all its tokens, or its rows of the residual
/// stream.
class RowPlaces {
 public:
  RowPlaces(const Mesh& mesh, const TensorRegion& region, const Sequences& s)
      : first_(SequenceSplit{s.whole_seq, mesh.shape().cp}.first(mesh.at().cp)),
        whole_seq_(s.whole_seq),
        seq_(s.seq),
        first_row_(region.splits_rows() ? mesh.at().tp * region.rows(s.tokens()) : 0),
        num_rows_(std::clamp<std::int64_t>(s.tokens() - first_row_, 0, region.rows(s.tokens()))) {}

  std::int64_t of_token(std::int64_t i) const { return i / seq_ * whole_seq_ + first_ + i % seq_; }
  std::int64_t of_row(std::int64_t i) const { return of_token(first_row_ + i); }
  /// Rows of the residual stream that are tokens.
  std::int64_t num_rows() const { return num_rows_; }

 private:
  std::int64_t first_, whole_seq_, seq_, first_row_, num_rows_;
};

/// What a forward leaves, by the names of the expected file.
void collect(const Context& ctx, const JambaModel& model, const TensorRegion& region,
             const Microbatch& batch, const JambaModel::Saved& saved, Pieces& out) {
  const Mesh& mesh = ctx.mesh;
  if (mesh.at().dp > 0) return;  // others have the same
  const RowPlaces places(mesh, region, batch.sequences);
  const auto of_row = [&](std::int64_t i) { return places.of_row(i); };
  const auto of_token = [&](std::int64_t i) { return places.of_token(i); };
  const bool first_of_tp = mesh.at().tp == 0;
  for (std::size_t i = 0; i < saved.hidden.size(); ++i) {
    if (i == 0 && !model.chunk().embedding) continue;  // the last output of the chunk before
    if (!first_of_tp && !region.splits_rows()) continue;
    out.emplace(fmt::format("hidden_states.{}", model.chunk().begin + static_cast<std::int64_t>(i)),
                make_piece(ctx.stream, saved.hidden[i].slice(0, places.num_rows()), 0, of_row));
  }
  for (std::size_t i = 0; i < saved.blocks.size(); ++i) {
    const auto* moe = std::get_if<Moe::Saved>(&saved.blocks[i].ffn);
    if (moe == nullptr || !first_of_tp) continue;
    out.emplace(fmt::format("router_logits.{}", model.chunk().begin + static_cast<std::int64_t>(i)),
                make_piece(ctx.stream, moe->logits, 0, of_token));
  }
}

void collect_head(const Context& ctx, const JambaModel& model, const TensorRegion& region,
                  const Microbatch& batch, const JambaModel::Saved& saved, Pieces& out) {
  ArenaScope scope(ctx.activations);
  const Tensor& hidden = saved.hidden.back();
  const Tensor logits =
      ctx.activation(hidden.dtype(), {batch.sequences.tokens(), model.head().num_ids()});
  const Tensor normed = ctx.activations.allocate(hidden.dtype(), hidden.dims());
  model.logits(ctx, logits, normed, saved);
  if (ctx.mesh.at().dp > 0) return;
  const RowPlaces places(ctx.mesh, region, batch.sequences);
  out.emplace("logits", make_piece(ctx.stream, logits, model.head().first_id(),
                                   [&](std::int64_t i) { return places.of_token(i); }));
  if (ctx.mesh.at().tp > 0 && !region.splits_rows()) return;
  out.emplace("final_norm_out", make_piece(ctx.stream, normed.slice(0, places.num_rows()), 0,
                                           [&](std::int64_t i) { return places.of_row(i); }));
}

void verify_model(Communicator& world, Stream& stream, const Fixture& fixture,
                  const VerifyOptions& options, Comparison& comparison) {
  const ModelConfig& config = fixture.config();
  const std::vector<std::int64_t> shape = fixture.input_shape("input_ids");
  const std::int64_t batch = shape.at(0), seq = shape.at(1), tokens = batch * seq;
  const RunConfig c = run_config(fixture, options, world, batch, seq);
  const Mesh mesh = make_mesh(c, world);
  RankModel rank(c, mesh, stream);
  fixture.load_weights(rank.parameters());
  rank.runner().poison();
  const TensorRegion region(mesh.tp(), c.parallel.sequence_parallel);
  FixtureTokens source(fixture, 1);

  MicrobatchBuffers buffers(mesh, stream, 1, batch, seq);
  source.fill(0, 0, buffers.tokens(0));
  buffers.send(0);
  const Microbatch view = buffers.model_view(0);
  Pieces pieces;
  rank.runner().forward(view, Recomputation::off,
                        [&](const Context& ctx, const JambaModel& model, JambaModel::Saved& saved) {
                          collect(ctx, model, region, view, saved, pieces);
                          if (model.chunk().head)
                            collect_head(ctx, model, region, view, saved, pieces);
                        });
  const auto add = [&](const std::string& name, std::int64_t cols,
                       const std::vector<std::int64_t>& as) {
    const LogicalTensor whole = gather_rows(stream, world, pieces, name, tokens, cols);
    comparison.add(name, as, whole.tensor(), options.tolerance);
  };
  add("logits", config.vocab_size, {batch, seq, config.vocab_size});
  add("final_norm_out", config.hidden_size, {batch, seq, config.hidden_size});
  const std::vector<LayerKind> layers = config.layers();
  for (std::int64_t i = 0; i <= config.num_hidden_layers; ++i) {
    add(fmt::format("hidden_states.{}", i), config.hidden_size, {batch, seq, config.hidden_size});
    if (i < config.num_hidden_layers && layers[static_cast<std::size_t>(i)].ffn == FfnKind::moe) {
      add(fmt::format("router_logits.{}", i), config.num_experts, {tokens, config.num_experts});
    }
  }

  // The very step that training takes, but for the update.
  RunConfig frozen = c;
  frozen.optimizer.lr = 0;
  frozen.optimizer.grad_clip = 0;
  TrainStep step(frozen, stream, rank);
  const Losses losses = step.run(source, 0, false).losses;
  comparison.add_scalar("loss", losses.total, options.tolerance);
  comparison.add_scalar("lm_loss", losses.lm, options.tolerance);
  comparison.add_scalar("aux_loss", losses.aux, options.tolerance);
  add_by_hub_name(comparison, fixture, "grad.", options.tolerance, rank.parameters(),
                  [&](const auto& entry, const auto& stretch) {
                    return rank.parameters().gradient(entry, stretch);
                  });
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

void verify_trajectory(Communicator& world, Stream& stream, const Fixture& fixture,
                       const VerifyOptions& options, Comparison& comparison) {
  const nlohmann::json& optimiser = fixture.meta().at("optimiser");
  const std::int64_t batch = optimiser.at("batch"), seq = optimiser.at("seq");
  const std::int64_t steps = optimiser.at("steps");
  RunConfig c = run_config(fixture, options, world, batch, seq);
  c.optimizer = optimizer_config(optimiser);
  c.train.steps = steps;
  const bool by_rank = fixture.meta().at("no_decay") == "parameters with ndim==1";
  const Mesh mesh = make_mesh(c, world);
  RankModel rank(c, mesh, stream, by_rank ? DecayRule::by_rank : DecayRule::standard);
  fixture.load_weights(rank.parameters());
  FixtureTokens source(fixture, optimiser.at("n_batches"));
  TrainStep train_step(c, stream, rank);

  const auto add_weights = [&](const std::string& prefix) {
    const Masters masters(rank.parameters(), Masters::Access::read);
    add_by_hub_name(
        comparison, fixture, prefix, options.tolerance, rank.parameters(),
        [&](const auto& entry, const auto& stretch) { return masters.of(entry, stretch); });
  };
  std::vector<double> total, lm, aux, norms, rates;
  for (std::int64_t step = 0; step < steps; ++step) {
    const StepOutcome outcome = train_step.run(source, step, false);
    total.push_back(outcome.losses.total);
    lm.push_back(outcome.losses.lm);
    aux.push_back(outcome.losses.aux);
    norms.push_back(outcome.grad_norm);
    rates.push_back(outcome.lr);
    if (step == 0) add_weights("after_step_1.");
  }
  for (std::size_t i = 0; i < total.size(); ++i) {
    comparison.expect_close("loss", static_cast<std::int64_t>(i), total[i], options.tolerance);
  }
  comparison.add_vector("loss", total, options.tolerance);
  comparison.add_vector("lm_loss", lm, options.tolerance);
  comparison.add_vector("aux_loss", aux, options.tolerance);
  comparison.add_vector("grad_norm", norms, options.tolerance);
  comparison.add_vector("lr", rates, options.tolerance);
  add_weights("final.");
}

/// This rank's tokens of an input [batch, seq, hidden].
void read_rows(Stream& stream, const Fixture& fixture, const std::string& name,
               const RowPlaces& places, const Tensor& out) {
  const SafetensorsEntry& entry = *fixture.inputs().find(name);
  const Buffer memory(entry.numel() * dtype_bytes(DType::f32));
  const Tensor whole = memory.tensor(DType::f32, {entry.numel()});
  fixture.inputs().read(entry, whole);
  const HostView rows(stream, out, HostAccess::write);
  for (std::int64_t i = 0; i < out.rows(); ++i) {
    std::copy_n(whole.ptr<float>() + places.of_token(i) * out.cols(), out.cols(),
                rows.ptr<float>() + i * out.cols());
  }
  rows.store();
}

void verify_mixer(Communicator& world, Stream& stream, const Fixture& fixture,
                  const VerifyOptions& options, Comparison& comparison) {
  const ModelConfig& config = fixture.config();
  const std::vector<std::int64_t> shape = fixture.input_shape("x");
  VerifyOptions float32 = options;
  float32.dtype = DType::f32;
  const RunConfig c = run_config(fixture, float32, world, shape.at(0), shape.at(1));
  const Mesh mesh = make_mesh(c, world);
  RankModel rank(c, mesh, stream);
  Parameters& parameters = rank.parameters();
  fixture.load_weights(parameters);
  const MambaMixer mixer(config, parameters, "model.layers.0.mamba.");
  Workspace workspace(stream, mesh);
  const Context ctx = workspace.context();
  const SequenceSplit split{shape.at(1), mesh.shape().cp};
  const Sequences sequences{shape.at(0), split.seq(mesh.at().cp), {}, {}, shape.at(1), {}};
  const RowPlaces places(mesh, TensorRegion(mesh.tp(), false), sequences);
  const auto make = [&] {
    return ctx.activation(DType::f32, {sequences.tokens(), config.hidden_size});
  };
  const Tensor x = make(), y = make(), dx = make(), dy = make();
  read_rows(stream, fixture, "x", places, x);
  read_rows(stream, fixture, "dy", places, dy);
  // Data-parallel ranks all take the whole batch, and their gradients are added.
  scale(stream, dy, 1.0f / static_cast<float>(mesh.shape().dp));

  MambaMixer::Saved saved;
  parameters.before(Pass::backward, layer_part(0));
  mixer.forward(ctx, sequences, y, x, saved);
  mixer.backward(ctx, sequences, dx, dy, x, saved, [] {});
  parameters.after(Pass::backward, layer_part(0));
  parameters.finish_gradients();
  Pieces pieces;
  if (mesh.at().dp == 0) {  // ranks' partial sums meet where the pieces are added
    const auto of_token = [&](std::int64_t i) { return places.of_token(i); };
    pieces.emplace("out", make_piece(stream, y, 0, of_token));
    scale(stream, dx, static_cast<float>(mesh.shape().dp));
    pieces.emplace("grad.x", make_piece(stream, dx, 0, of_token));
  }
  for (const char* name : {"out", "grad.x"}) {
    const LogicalTensor whole =
        gather_rows(stream, world, pieces, name, shape.at(0) * shape.at(1), config.hidden_size);
    comparison.add(name, shape, whole.tensor(), options.tolerance);
  }
  add_by_hub_name(
      comparison, fixture, "grad.", options.tolerance, parameters,
      [&](const auto& entry, const auto& stretch) { return parameters.gradient(entry, stretch); });
}

}  // namespace

void verify(Communicator& world, Stream& stream, const Fixture& fixture,
            const VerifyOptions& options, Comparison& comparison) {
  switch (fixture.kind()) {
    case FixtureKind::model:
      return verify_model(world, stream, fixture, options, comparison);
    case FixtureKind::trajectory:
      return verify_trajectory(world, stream, fixture, options, comparison);
    case FixtureKind::mixer:
      return verify_mixer(world, stream, fixture, options, comparison);
  }
}

}  // namespace jamba

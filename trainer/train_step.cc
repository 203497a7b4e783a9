#include "trainer/train_step.h"

#include <algorithm>
#include <cmath>

#include "kernels/pointwise/pointwise.h"
#include "trainer/metrics/figures.h"
#include "trainer/optim/schedule.h"

namespace jamba {

namespace {

std::int64_t micro_count(const RunConfig& c, int ranks) {
  return c.train.global_batch_size / (c.train.micro_batch_size * ranks);
}

std::int64_t bucket_elements(const RunConfig& c) {
  return std::max<std::int64_t>(static_cast<std::int64_t>(c.parallel.bucket_mb * 1e6 / 4), 1);
}

}  // namespace

TrainStep::TrainStep(const RunConfig& config, Communicator& dp, Workspace& workspace,
                     const Parameters& parameters, const JambaModel& model,
                     const AdamWOptimizer& optimizer)
    : config_(config),
      dp_(dp),
      workspace_(workspace),
      parameters_(parameters),
      model_(model),
      optimizer_(optimizer),
      buffers_(micro_count(config, dp.size()), config.train.micro_batch_size, config.data.seq_len),
      reducer_(dp, workspace.stream(), parameters.flat_gradients(), bucket_elements(config)),
      saved_(model.make_saved()),
      expert_counts_(static_cast<std::size_t>(model.num_moe_layers() * config.model.num_experts)) {}

StepOutcome TrainStep::run(TokenSource& source, std::int64_t step, bool stop) {
  StepOutcome out;
  out.lr = learning_rate(config_.optimizer, step, config_.train.steps);
  const LossScale scale = load_tokens(source, step);
  const LossSums sums = forward_backward(step, scale);
  share_sums(sums, scale, stop, out);
  share_expert_load(out);
  update(step, out);
  return out;
}

LossScale TrainStep::load_tokens(TokenSource& source, std::int64_t step) {
  std::int64_t targets = 0;
  for (std::int64_t i = 0; i < buffers_.count(); ++i) {
    targets += source.fill(step, i, buffers_.tokens(i));
  }
  dp_.all_reduce(workspace_.stream(), Tensor(&targets, DType::i64, {1}), ReduceOp::sum);
  return {targets > 0 ? 1.0 / static_cast<double>(targets) : 0.0,
          1.0 / static_cast<double>(config_.train.global_batch_size)};
}

LossSums TrainStep::forward_backward(std::int64_t step, const LossScale& scale) {
  const Recomputation recomputation =
      config_.train.recompute == Recompute::block ? Recomputation::on : Recomputation::off;
  const std::int64_t sequences = config_.train.micro_batch_size;
  LossSums total;
  std::fill(expert_counts_.begin(), expert_counts_.end(), 0);
  model_.start_gradients(workspace_.stream());
  for (std::int64_t i = 0; i < buffers_.count(); ++i) {
    const bool last = i + 1 == buffers_.count();
    workspace_.reset();
    const Context ctx = workspace_.context(i == 0 ? Write::overwrite : Write::accumulate);
    const RouterNoise noise{config_.train.seed, static_cast<std::uint64_t>(step),
                            (dp_.rank() * buffers_.count() + i) * sequences * config_.data.seq_len};
    const LossSums sums = model_.train(ctx, buffers_.model_view(i), scale, noise, recomputation,
                                       saved_, [&](std::int64_t offset) {
                                         if (last) reducer_.ready_from(offset);
                                       });
    total += sums;
    model_.add_expert_counts(saved_, expert_counts_);
  }
  reducer_.finish();
  return total;
}

/// Sums every rank's losses in rank order, in double: the same number on all ranks.
void TrainStep::share_sums(const LossSums& sums, const LossScale& scale, bool stop,
                           StepOutcome& out) {
  constexpr std::int64_t kFields = 5;
  const double mine[kFields] = {sums.nll * scale.token, sums.aux * scale.sequence,
                                sums.z * scale.sequence, sums.activation * scale.sequence,
                                stop ? 1.0 : 0.0};
  constexpr std::int64_t kBytes = kFields * static_cast<std::int64_t>(sizeof(double));
  gathered_.resize(static_cast<std::size_t>(kFields * dp_.size()));
  dp_.all_gather(workspace_.stream(), Tensor(gathered_.data(), DType::u8, {dp_.size(), kBytes}),
                 Tensor(const_cast<double*>(mine), DType::u8, {kBytes}));
  double total[kFields] = {};
  for (int r = 0; r < dp_.size(); ++r) {
    for (std::int64_t f = 0; f < kFields; ++f) {
      total[f] += gathered_[static_cast<std::size_t>(r * kFields + f)];
    }
  }
  const ModelConfig& m = config_.model;
  out.lm_loss = total[0];
  out.aux_loss = total[1];
  out.z_loss = total[2];
  out.activation_loss = total[3];
  out.stop_requested = total[4] > 0;
  out.loss = total[0] + m.router_aux_loss_coef * total[1] + m.router_z_loss_coef * total[2] +
             m.activation_loss_coef * total[3];
}

void TrainStep::share_expert_load(StepOutcome& out) {
  const std::int64_t layers = model_.num_moe_layers(), experts = config_.model.num_experts;
  if (layers == 0) return;
  dp_.all_reduce(workspace_.stream(), Tensor(expert_counts_.data(), DType::i64, {layers * experts}),
                 ReduceOp::sum);
  const ExpertLoad load = expert_load(expert_counts_, experts);
  out.expert_load_max = load.max_over_mean;
  out.expert_entropy = load.entropy;
}

/// Gradients and losses are the same bits on every rank, so that every rank decides alike.
void TrainStep::update(std::int64_t step, StepOutcome& out) {
  Stream& stream = workspace_.stream();
  workspace_.reset();
  out.grad_norm =
      std::sqrt(sum_of_squares(stream, workspace_.scratch(), parameters_.flat_gradients()));
  out.skipped = !std::isfinite(out.grad_norm) || !std::isfinite(out.loss);
  if (out.skipped) return;
  optimizer_.step(stream, out.lr, step + 1,
                  clip_factor(out.grad_norm, config_.optimizer.grad_clip));
}

}  // namespace jamba

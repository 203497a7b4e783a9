#include "trainer/train_step.h"

#include <algorithm>
#include <cmath>

#include "trainer/metrics/figures.h"
#include "trainer/optim/schedule.h"

namespace jamba {

TrainStep::TrainStep(const RunConfig& config, Stream& stream, RankModel& rank)
    : config_(config),
      stream_(stream),
      rank_(rank),
      buffers_(rank.mesh(), stream, jamba::num_micro(config, rank.mesh().shape()),
               config.train.micro_batch_size, config.data.seq_len),
      expert_counts_(
          static_cast<std::size_t>(num_mixtures(config.model) * config.model.num_experts)) {}

StepOutcome TrainStep::run(TokenSource& source, std::int64_t step, bool stop) {
  StepOutcome out;
  out.lr = learning_rate(config_.optimizer, step, config_.train.steps);
  const LossScale scale = load_tokens(source, step);
  LossSums sums = forward_backward(step, scale);
  share_losses(sums, scale, out);
  share_counts(stop, out);
  update(step, out);
  return out;
}

LossScale TrainStep::load_tokens(TokenSource& source, std::int64_t step) {
  std::int64_t targets = 0;
  for (std::int64_t i = 0; i < buffers_.count(); ++i) {
    targets += source.fill(step, buffers_.number(i), buffers_.tokens(i));
    buffers_.send(i);
  }
  rank_.mesh().dp().all_reduce(stream_, Tensor(&targets, DType::i64, {1}));
  return {targets > 0 ? 1.0 / static_cast<double>(targets) : 0.0,
          1.0 / static_cast<double>(config_.train.global_batch_size)};
}

LossSums TrainStep::forward_backward(std::int64_t step, const LossScale& scale) {
  std::fill(expert_counts_.begin(), expert_counts_.end(), 0);
  dropped_rows_ = 0;
  const RouterNoise noise{config_.train.seed, static_cast<std::uint64_t>(step)};
  return rank_.runner().train(buffers_, scale, noise, expert_counts_, dropped_rows_);
}

void TrainStep::share_losses(LossSums& sums, const LossScale& scale, StepOutcome& out) {
  sums.all_reduce(stream_, rank_.mesh().world());
  out.losses =
      mean_losses(sums, scale, config_.model, config_.train.micro_batch_size, config_.data.seq_len);
}

/// Tensor-parallel ranks route the same tokens: one of them counts.
void TrainStep::share_counts(bool stop, StepOutcome& out) {
  std::vector<std::int64_t> shared = expert_counts_;
  shared.push_back(dropped_rows_);
  if (rank_.mesh().at().tp > 0) std::fill(shared.begin(), shared.end(), 0);
  shared.push_back(stop ? 1 : 0);
  rank_.mesh().world().all_reduce(stream_, Tensor(shared.data(), DType::i64, {std::ssize(shared)}));
  out.stop_requested = shared.back() > 0;
  out.dropped_rows = shared[shared.size() - 2];
  shared.resize(expert_counts_.size());
  const ExpertLoad load = expert_load(shared, config_.model.num_experts);
  out.expert_load_max = load.max_over_mean;
  out.expert_entropy = load.entropy;
}

double TrainStep::gradient_norm() {
  ExactSum squares;
  rank_.parameters().add_gradient_squares(rank_.runner().scratch(), squares);
  const std::span<std::int64_t> words = squares.words();
  rank_.mesh().world().all_reduce(stream_, Tensor(words.data(), DType::i64, {std::ssize(words)}));
  return std::sqrt(squares.value());
}

/// The norm and the losses are the same bits on every rank, so that every rank decides alike.
void TrainStep::update(std::int64_t step, StepOutcome& out) {
  out.grad_norm = gradient_norm();
  out.skipped = !std::isfinite(out.grad_norm) || !std::isfinite(out.losses.total);
  if (out.skipped) return;
  rank_.optimizer().step(out.lr, step + 1, clip_factor(out.grad_norm, config_.optimizer.grad_clip));
}

}  // namespace jamba

#pragma once
// One optimizer step over the global batch.

#include <cstdint>
#include <vector>

#include "trainer/rank_model.h"

namespace jamba {

/// What a step did; the same on all ranks.
struct StepOutcome {
  Losses losses;
  double grad_norm = 0;
  double lr = 0;
  bool skipped = false;  // a loss or the norm was not finite: weights and moments are unchanged
  bool stop_requested = false;    // on any rank
  double expert_load_max = 0;     // busiest expert over mean, worst layer; 0 without mixtures
  double expert_entropy = 0;      // of the load, mean over layers
  std::int64_t dropped_rows = 0;  // copies of tokens that experts had no room for
};

/// Where a step's tokens come from.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  /// Fills microbatch `micro` of the step's global batch, whole sequences; returns its number of
  /// targets. The same tokens for any mesh.
  virtual std::int64_t fill(std::int64_t step, std::int64_t micro, const Batch& out) = 0;
};

class TrainStep {
 public:
  TrainStep(const RunConfig&, Stream&, RankModel&);

  /// Forward, backward, reduction, clipping and update of one step (from 0).
  /// stop: this rank was asked to stop.
  StepOutcome run(TokenSource&, std::int64_t step, bool stop);

  /// Of the finished gradients, over the whole mesh; all ranks together.
  double gradient_norm();
  std::int64_t num_micro() const { return buffers_.count(); }

 private:
  LossScale load_tokens(TokenSource&, std::int64_t step);
  LossSums forward_backward(std::int64_t step, const LossScale&);
  void share_losses(LossSums&, const LossScale&, StepOutcome&);
  void share_counts(bool stop, StepOutcome&);
  void update(std::int64_t step, StepOutcome&);

  const RunConfig& config_;
  Stream& stream_;
  RankModel& rank_;
  MicrobatchBuffers buffers_;
  std::vector<std::int64_t> expert_counts_;  // [mixtures, experts] of this step, then two figures
  std::int64_t dropped_rows_ = 0;
};

}  // namespace jamba

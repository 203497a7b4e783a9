#pragma once
// One optimizer step over the global batch.

#include <cstdint>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/data_parallel.h"
#include "trainer/microbatch_buffers.h"
#include "trainer/model/workspace.h"
#include "trainer/optim/adamw_optimizer.h"
#include "trainer/run_config.h"

namespace jamba {

/// What a step did; the same on all ranks.
struct StepOutcome {
  double loss = 0;  // lm and the other terms times their coefficients
  double lm_loss = 0;
  double aux_loss = 0;
  double z_loss = 0;
  double activation_loss = 0;
  double grad_norm = 0;
  double lr = 0;
  bool skipped = false;  // a loss or the norm was not finite: weights and moments are unchanged
  bool stop_requested = false;  // on any rank
  double expert_load_max = 0;   // busiest expert over mean, worst layer; 0 without mixtures
  double expert_entropy = 0;    // of the load, mean over layers
};

/// Where a step's tokens come from.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  /// Fills this rank's microbatch; returns its number of targets.
  virtual std::int64_t fill(std::int64_t step, std::int64_t micro_index, const Batch& out) = 0;
};

class TrainStep {
 public:
  /// dp: the ranks among which the global batch is split.
  TrainStep(const RunConfig&, Communicator& dp, Workspace&, const Parameters&, const JambaModel&,
            const AdamWOptimizer&);

  /// Forward, backward, reduction, clipping and update of one step (from 0).
  /// stop: this rank was asked to stop.
  StepOutcome run(TokenSource&, std::int64_t step, bool stop);

  std::int64_t num_micro() const { return buffers_.count(); }

 private:
  LossScale load_tokens(TokenSource&, std::int64_t step);
  LossSums forward_backward(std::int64_t step, const LossScale&);
  void share_sums(const LossSums&, const LossScale&, bool stop, StepOutcome&);
  void share_expert_load(StepOutcome&);
  void update(std::int64_t step, StepOutcome&);

  const RunConfig& config_;
  Communicator& dp_;
  Workspace& workspace_;
  const Parameters& parameters_;
  const JambaModel& model_;
  const AdamWOptimizer& optimizer_;
  MicrobatchBuffers buffers_;
  GradientReducer reducer_;
  JambaModel::Saved saved_;
  std::vector<std::int64_t> expert_counts_;  // [moe layers, experts], of this step
  std::vector<double> gathered_;
};

}  // namespace jamba

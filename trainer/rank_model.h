#pragma once
// What one rank of a training run holds of the model.

#include <vector>

#include "trainer/model/jamba.h"
#include "trainer/optim/adamw_optimizer.h"
#include "trainer/run_config.h"
#include "trainer/stage_runner.h"

namespace jamba {

/// Parameters, layers and optimizer of one rank, cut as the config's mesh says.
/// Microbatches a step: train.global_batch_size / (train.micro_batch_size * dp).
class RankModel {
 public:
  RankModel(const RunConfig&, const Mesh&, Stream&, DecayRule = DecayRule::standard);
  RankModel(const RankModel&) = delete;
  RankModel& operator=(const RankModel&) = delete;

  const Mesh& mesh() const { return mesh_; }
  Parameters& parameters() { return parameters_; }
  const AdamWOptimizer& optimizer() const { return optimizer_; }
  std::span<const JambaModel> chunks() const { return chunks_; }
  StageRunner& runner() { return runner_; }

 private:
  const Mesh& mesh_;
  Parameters parameters_;
  std::vector<JambaModel> chunks_;
  AdamWOptimizer optimizer_;
  StageRunner runner_;
};

/// Microbatches of one rank in a step.
std::int64_t num_micro(const RunConfig&, const MeshShape&);
/// The mesh of the config's degrees, on all ranks of the world. The config must be sound for it.
Mesh make_mesh(const RunConfig&, Communicator& world);

}  // namespace jamba

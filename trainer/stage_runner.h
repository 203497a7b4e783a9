#pragma once
// Runs microbatches through the chunks of the model that this rank's pipeline stage holds.

#include <functional>
#include <vector>

#include "parallel/pipeline_schedule.h"
#include "trainer/microbatch_buffers.h"
#include "trainer/model/jamba.h"

namespace jamba {

/// Owns the activation memory: of each chunk one arena a microbatch in flight, and one scratch
/// arena.
class StageRunner {
 public:
  /// The chunks, their parameters and the mesh must outlive it.
  StageRunner(const Mesh&, Stream&, Parameters&, std::span<const JambaModel> chunks, Recomputation);

  /// Forward and backward of all microbatches of a step, and the sums of gradients over ranks.
  /// Adds to expert_counts [mixtures, experts] what experts this rank's tokens chose, and to
  /// num_dropped the copies that had no room.
  LossSums train(const MicrobatchBuffers&, const LossScale&, const std::optional<RouterNoise>&,
                 std::span<std::int64_t> expert_counts, std::int64_t& num_dropped);

  /// What is done with a chunk's forward. Called on every stage, with saved state complete.
  using Visitor = std::function<void(const Context&, const JambaModel&, JambaModel::Saved&)>;
  /// Forward of one microbatch. Without recomputation the layers' saved state is kept for the
  /// visitor.
  void forward(const Microbatch&, Recomputation, const Visitor&);

  Arena& scratch() { return scratch_; }
  /// The largest need so far of all activation arenas together, and of scratch.
  std::int64_t activation_bytes() const;
  std::int64_t scratch_bytes() const { return scratch_.high_water_bytes(); }
  /// Device allocations so far; constant once warm.
  std::int64_t num_allocations() const;
  /// New memory starts as NaN; for tests.
  void poison();

 private:
  /// A microbatch in flight.
  struct Slot {
    explicit Slot(Device device) : activations(device) {}

    Arena activations;
    JambaModel::Saved saved;
    Microbatch batch;
    Tensor dx;
    std::vector<PendingCollective> sending;
    std::int64_t microbatch = -1;
  };
  struct Chunk {
    const JambaModel* model;
    std::vector<Slot> slots;
  };

  Context context(Slot&);
  Slot& open(int chunk, std::int64_t microbatch, const Microbatch&);
  void plan(int num_microbatches);
  void send(Slot&, const std::vector<Tensor>&, int peer);
  void receive(const std::vector<Tensor>&, int peer);
  void settle(Slot&);

  const Mesh& mesh_;
  Stream& stream_;
  Parameters& parameters_;
  Recomputation recomputation_;
  Arena scratch_;
  std::vector<Chunk> chunks_;
  std::vector<PipelineAction> actions_;
  int planned_microbatches_ = 0;
};

}  // namespace jamba

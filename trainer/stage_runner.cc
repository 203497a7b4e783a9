#include "trainer/stage_runner.h"

#include <algorithm>

namespace jamba {

StageRunner::StageRunner(const Mesh& mesh, Stream& stream, Parameters& parameters,
                         std::span<const JambaModel> chunks, Recomputation recomputation)
    : mesh_(mesh),
      stream_(stream),
      parameters_(parameters),
      recomputation_(recomputation),
      scratch_(stream.device()) {
  for (const JambaModel& chunk : chunks) {
    chunks_.push_back({&chunk, {}});
    chunks_.back().slots.emplace_back(stream.device());
  }
}

Context StageRunner::context(Slot& slot) { return {stream_, slot.activations, scratch_, mesh_}; }

void StageRunner::settle(Slot& slot) {
  for (PendingCollective& sending : slot.sending) sending.wait();
  slot.sending.clear();
}

void StageRunner::send(Slot& slot, const std::vector<Tensor>& tensors, int peer) {
  for (const Tensor& t : tensors) slot.sending.push_back(mesh_.pp().start_send(stream_, t, peer));
}

void StageRunner::receive(const std::vector<Tensor>& tensors, int peer) {
  for (const Tensor& t : tensors) mesh_.pp().start_receive(stream_, t, peer).wait();
}

/// The place of a microbatch, ready for its forward if it is new.
StageRunner::Slot& StageRunner::open(int chunk, std::int64_t microbatch, const Microbatch& batch) {
  Chunk& c = chunks_[static_cast<std::size_t>(chunk)];
  Slot& slot = c.slots[static_cast<std::size_t>(microbatch) % c.slots.size()];
  if (slot.microbatch == microbatch) return slot;
  settle(slot);
  slot.microbatch = microbatch;
  slot.batch = batch;
  slot.activations.reset();
  c.model->begin(context(slot), slot.batch, slot.saved);
  return slot;
}

void StageRunner::plan(int num_microbatches) {
  if (num_microbatches == planned_microbatches_) return;
  PipelineShape shape;
  shape.num_ranks = mesh_.shape().pp;
  shape.num_chunks = static_cast<int>(chunks_.size());
  shape.num_microbatches = num_microbatches;
  if (shape.num_chunks > 1) shape.schedule = PipelineSchedule::interleaved;
  actions_ = pipeline_actions(shape, mesh_.at().pp);
  for (int c = 0; c < shape.num_chunks; ++c) {
    std::vector<Slot>& slots = chunks_[static_cast<std::size_t>(c)].slots;
    const auto in_flight = static_cast<std::size_t>(max_in_flight(actions_, c));
    while (slots.size() > in_flight) slots.pop_back();
    while (slots.size() < in_flight) slots.emplace_back(stream_.device());
  }
  planned_microbatches_ = num_microbatches;
}

LossSums StageRunner::train(const MicrobatchBuffers& batches, const LossScale& scale,
                            const std::optional<RouterNoise>& noise,
                            std::span<std::int64_t> expert_counts, std::int64_t& num_dropped) {
  plan(static_cast<int>(batches.count()));
  for (Chunk& chunk : chunks_) {
    for (Slot& slot : chunk.slots) slot.microbatch = -1;
  }
  LossSums sums;
  for (const PipelineAction& action : actions_) {
    using Kind = PipelineAction::Kind;
    const JambaModel& model = *chunks_[static_cast<std::size_t>(action.chunk)].model;
    const bool computes = action.kind == Kind::forward || action.kind == Kind::backward;
    const int peer = computes ? -1 : peer_of(action.kind, mesh_.shape().pp, mesh_.at().pp);
    Slot& slot =
        open(action.chunk, action.microbatch, batches.model_view(action.microbatch, noise));
    const Context ctx = context(slot);
    switch (action.kind) {
      case Kind::receive_activation:
        receive(model.inputs(slot.saved), peer);
        break;
      case Kind::forward:
        model.forward(ctx, slot.batch, recomputation_, slot.saved);
        model.add_expert_counts(stream_, slot.saved, expert_counts);
        num_dropped += model.num_dropped(slot.saved);
        break;
      case Kind::send_activation:
        send(slot, model.outputs(slot.saved), peer);
        break;
      case Kind::receive_gradient:
        slot.dx = model.begin_backward(ctx, slot.batch, slot.saved);
        receive(model.output_gradients(slot.saved, slot.dx), peer);
        break;
      case Kind::backward:
        parameters_.set_microbatch(action.microbatch);
        if (model.chunk().head) {
          slot.dx = model.begin_backward(ctx, slot.batch, slot.saved);
          model.head_backward(ctx, slot.batch, scale, slot.dx, slot.saved, sums);
        }
        model.backward(ctx, slot.batch, scale, slot.dx, recomputation_, slot.saved, sums);
        break;
      case Kind::send_gradient:
        send(slot, model.input_gradients(slot.saved, slot.dx), peer);
        break;
    }
  }
  for (Chunk& chunk : chunks_) std::ranges::for_each(chunk.slots, [&](Slot& s) { settle(s); });
  parameters_.finish_gradients();
  scratch_.reset();
  return sums;
}

void StageRunner::forward(const Microbatch& batch, Recomputation recomputation,
                          const Visitor& visit) {
  const int ranks = mesh_.shape().pp, rank = mesh_.at().pp;
  for (std::size_t c = 0; c < chunks_.size(); ++c) {
    const JambaModel& model = *chunks_[c].model;
    Slot& slot = chunks_[c].slots.front();
    slot.microbatch = -1;
    open(static_cast<int>(c), 0, batch);
    const Context ctx = context(slot);
    receive(model.inputs(slot.saved), (rank + ranks - 1) % ranks);
    model.forward(ctx, slot.batch, recomputation, slot.saved);
    send(slot, model.outputs(slot.saved), (rank + 1) % ranks);
    visit(ctx, model, slot.saved);
  }
  for (Chunk& chunk : chunks_) settle(chunk.slots.front());
}

std::int64_t StageRunner::activation_bytes() const {
  std::int64_t bytes = 0;
  for (const Chunk& chunk : chunks_) {
    for (const Slot& slot : chunk.slots) bytes += slot.activations.high_water_bytes();
  }
  return bytes;
}

std::int64_t StageRunner::num_allocations() const {
  std::int64_t count = scratch_.num_allocations();
  for (const Chunk& chunk : chunks_) {
    for (const Slot& slot : chunk.slots) count += slot.activations.num_allocations();
  }
  return count;
}

void StageRunner::poison() {
  scratch_.poison_on(stream_);
  for (Chunk& chunk : chunks_) {
    for (Slot& slot : chunk.slots) slot.activations.poison_on(stream_);
  }
}

}  // namespace jamba

#include "parallel/pipeline_schedule.h"

#include <algorithm>
#include <utility>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

using Kind = PipelineAction::Kind;

void check_sound(const PipelineShape& s) {
  JAMBA_CHECK(std::min({s.num_ranks, s.num_chunks, s.num_microbatches}) >= 1,
              "a pipeline of {} ranks, {} chunks, {} microbatches", s.num_ranks, s.num_chunks,
              s.num_microbatches);
  if (s.schedule == PipelineSchedule::one_f_one_b) {
    JAMBA_CHECK(s.num_chunks == 1, "1F1B runs one chunk a rank, got {}", s.num_chunks);
    return;
  }
  JAMBA_CHECK(s.num_ranks > 1 && s.num_chunks > 1,
              "interleaving needs two ranks and two chunks, got {} and {}", s.num_ranks,
              s.num_chunks);
  JAMBA_CHECK(s.num_microbatches % s.num_ranks == 0,
              "interleaving needs a multiple of {} microbatches, got {}", s.num_ranks,
              s.num_microbatches);
}

/// Forwards that a rank runs before its first backward, less the one that is paired with it.
int num_warmup(const PipelineShape& s, int rank) {
  const int behind = s.num_ranks - 1 - rank;
  if (s.schedule == PipelineSchedule::one_f_one_b) return behind;
  return 2 * behind + (s.num_chunks - 1) * s.num_ranks;
}

/// Appends one rank's computations with the messages around them.
class ActionList {
 public:
  ActionList(const PipelineShape& shape, int rank) : shape_(shape), rank_(rank) {}

  /// The `index`-th forward: the chunks take turns, num_ranks microbatches each.
  void forward(int index) {
    const int chunk = index / shape_.num_ranks % shape_.num_chunks;
    if (!is_first(chunk)) add(Kind::receive_activation, chunk, index);
    add(Kind::forward, chunk, index);
    if (!is_last(chunk)) add(Kind::send_activation, chunk, index);
  }
  /// The `index`-th backward: as forward, with the chunks in reverse.
  void backward(int index) {
    const int chunk = shape_.num_chunks - 1 - index / shape_.num_ranks % shape_.num_chunks;
    if (!is_last(chunk)) add(Kind::receive_gradient, chunk, index);
    add(Kind::backward, chunk, index);
    if (!is_first(chunk)) add(Kind::send_gradient, chunk, index);
  }
  std::vector<PipelineAction> take() { return std::move(actions_); }

 private:
  bool is_first(int chunk) const { return chunk == 0 && rank_ == 0; }
  bool is_last(int chunk) const {
    return chunk == shape_.num_chunks - 1 && rank_ == shape_.num_ranks - 1;
  }
  void add(Kind kind, int chunk, int index) {
    const int group = index / (shape_.num_ranks * shape_.num_chunks);
    actions_.push_back({kind, chunk, group * shape_.num_ranks + index % shape_.num_ranks});
  }

  const PipelineShape& shape_;
  int rank_;
  std::vector<PipelineAction> actions_;
};

}  // namespace

std::vector<PipelineAction> pipeline_actions(const PipelineShape& shape, int rank) {
  check_sound(shape);
  JAMBA_CHECK(0 <= rank && rank < shape.num_ranks, "rank {} of {}", rank, shape.num_ranks);
  const int total = shape.num_microbatches * shape.num_chunks;
  const int warmup = std::min(total, num_warmup(shape, rank));
  ActionList list(shape, rank);
  for (int i = 0; i < warmup; ++i) list.forward(i);
  for (int i = warmup; i < total; ++i) {
    list.forward(i);
    list.backward(i - warmup);
  }
  for (int i = total - warmup; i < total; ++i) list.backward(i);
  return list.take();
}

int peer_of(Kind kind, int num_ranks, int rank) {
  JAMBA_CHECK(kind != Kind::forward && kind != Kind::backward, "a computation has no peer");
  const bool next = kind == Kind::send_activation || kind == Kind::receive_gradient;
  return (rank + (next ? 1 : num_ranks - 1)) % num_ranks;
}

int max_in_flight(std::span<const PipelineAction> actions, int chunk) {
  int in_flight = 0;
  int most = 0;
  for (const PipelineAction& action : actions) {
    if (action.chunk != chunk) continue;
    if (action.kind == Kind::forward) most = std::max(most, ++in_flight);
    if (action.kind == Kind::backward) --in_flight;
  }
  return most;
}

double bubble_share(const PipelineShape& shape) {
  check_sound(shape);
  const double idle = shape.num_ranks - 1;
  return idle / (static_cast<double>(shape.num_chunks) * shape.num_microbatches + idle);
}

std::vector<int> split_layers(int num_layers, int num_stages) {
  JAMBA_CHECK(num_layers >= 0 && num_stages >= 1, "{} layers over {} stages", num_layers,
              num_stages);
  const int num_larger = num_layers % num_stages;
  std::vector<int> first = {0};
  for (int stage = 0; stage < num_stages; ++stage) {
    const bool larger = stage < num_stages - 1 && stage >= num_stages - 1 - num_larger;
    first.push_back(first.back() + num_layers / num_stages + (larger ? 1 : 0));
  }
  return first;
}

}  // namespace jamba

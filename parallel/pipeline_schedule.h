#pragma once
// Pipeline schedules as data: what each rank does, in which order.

#include <span>
#include <vector>

namespace jamba {

/// one_f_one_b: arXiv:2006.09503, with flushes. interleaved: arXiv:2104.04473, where every rank
/// holds several chunks of the model and microbatches go through it in groups of num_ranks.
enum class PipelineSchedule { one_f_one_b, interleaved };

/// Stage c * num_ranks + r of the model is chunk c of rank r.
struct PipelineShape {
  PipelineSchedule schedule = PipelineSchedule::one_f_one_b;
  int num_ranks = 1;
  int num_chunks = 1;  // a rank. one_f_one_b: 1; interleaved: at least 2
  int num_microbatches = 1;
};

struct PipelineAction {
  enum class Kind {
    receive_activation,
    forward,
    send_activation,
    receive_gradient,
    backward,
    send_gradient
  };
  Kind kind = Kind::forward;
  int chunk = 0;  // of this rank: the one that computes, sends or receives
  int microbatch = 0;
  friend bool operator==(const PipelineAction&, const PipelineAction&) = default;
};

/// The actions of `rank`, in order. Every chunk runs every microbatch forward, then backward, and
/// microbatches in ascending order. A receive stands right before what needs it, a send right
/// after what made it; the first stage receives no activation and sends no gradient, the last sends
/// no activation and receives no gradient.
/// In flight: at most num_ranks - rank microbatches under one_f_one_b; interleaved, over all
/// chunks,
///   2 * (num_ranks - 1 - rank) + (num_chunks - 1) * num_ranks + 1.
/// Messages: with receives that block and sends that do not, all ranks finish. Each rank receives
///   from a peer in the order in which the peer sends to it, activations and gradients together,
///   so one stream of messages a pair, without tags, is enough. With three ranks or more a pair
///   carries one kind in each direction. Two interleaved ranks carry both: rank 0 uses what rank 1
///   made two forwards later, and its backwards follow its forwards two later as well.
/// Errors: LogicError if a number is below 1, `rank` is out of range, one_f_one_b has more than one
///   chunk, or interleaved has one rank, one chunk, or microbatches that are no multiple of
///   num_ranks.
std::vector<PipelineAction> pipeline_actions(const PipelineShape&, int rank);

/// The rank that an action of this kind sends to or receives from. Errors: LogicError for forward
/// and backward.
int peer_of(PipelineAction::Kind kind, int num_ranks, int rank);

/// The most microbatches of the chunk whose forward has run and whose backward has not.
int max_in_flight(std::span<const PipelineAction> actions, int chunk);

/// The share of a step's time that a rank idles, if all stages take equally long, forward and
/// backward each: (P - 1) / (chunks * microbatches + P - 1). Errors: as pipeline_actions.
double bubble_share(const PipelineShape&);

/// Stage s gets layers [first[s], first[s + 1]); the result has num_stages + 1 entries. Sizes
/// differ by at most one. The larger ones end before the last stage, which has the head, and reach
/// the first, which has the embedding and keeps the most microbatches, last. Errors: LogicError if
/// num_layers is below 0 or num_stages below 1.
std::vector<int> split_layers(int num_layers, int num_stages);

}  // namespace jamba

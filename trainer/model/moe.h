#pragma once
#include <optional>

#include "parallel/expert_parallel.h"
#include "trainer/model/context.h"
#include "trainer/model/model_config.h"
#include "trainer/model/parameters.h"

namespace jamba {

/// What a microbatch is among all tokens of a step, for what depends on a token's place and not on
/// the rank that has it: the router's noise, and balanced routing.
struct TokenPlaces {
  std::int64_t first_sequence = 0;  // of the microbatch, in the step's global batch
  std::int64_t seq_len = 0;         // of a whole sequence
  std::int64_t first_token = 0;     // of this rank, in each sequence
};

/// Noise on the router's logits: a function of (seed, step, layer, token). Absent outside training.
struct RouterNoise {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
};

/// How a pass routes.
struct Routing {
  std::optional<RouterNoise> noise;
  TokenPlaces places;
};

/// What a mixture's balancing losses need, in groups of tokens (a sequence, or the microbatch).
/// Shapes: prob_sum float32 and counts int64 [groups, experts]; z_sum float32 [groups].
struct RouterStatistics {
  Tensor prob_sum, counts, z_sum;
  std::int64_t tokens_per_group = 0;

  std::int64_t groups() const { return z_sum.numel(); }
};

/// Statistics of one layer whose microbatch has `groups` groups.
RouterStatistics make_statistics(Arena&, std::int64_t groups, std::int64_t experts,
                                 std::int64_t tokens_per_group);

/// Gradients of the balancing losses, computed once all layers' statistics are known.
struct RouterLossGradient {
  Tensor dprobs;      // float32 [groups, experts], the same for every token of a group; or absent
  float z_scale = 0;  // coefficient over the number of rows it averages
};

/// Mixture of experts: softmax router, top-k, SwiGLU experts. A routed row is multiplied by its
/// weight between the expert's two products, where its rank has it at hand.
/// Parallel: all tensor-parallel ranks route the same tokens alike, and split every expert's width.
class Moe {
 public:
  /// prefix: "model.layers.3.feed_forward."; layer: seeds the router's noise.
  Moe(const ModelConfig&, const Parameters&, const std::string& prefix, std::int64_t layer);

  struct Saved {
    Tensor logits, probs, index, weight, row_of_slot, slot_of_row, gate_up, row_weight;
    std::vector<std::int64_t> offsets;  // [experts + 1], of this rank's rows
    Tensor rows_in;                     // of other ranks too; absent where x has them
    std::optional<ExpertExchange> exchange;
    RouterStatistics statistics;
  };
  /// y [tokens, hidden], this rank's partial sum; x [tokens, hidden]. Writes the statistics of this
  /// microbatch (recompute writes the same).
  void forward(const Context&, const Sequences&, Tensor y, Tensor x, const RouterStatistics&,
               const Routing&, Saved&) const;
  /// x: what forward had. dx, this rank's partial sum, overwrites; dx_ready is called when it is
  /// complete. Weights' gradients accumulate.
  void backward(const Context&, const Sequences&, Tensor dx, Tensor dy, Tensor x,
                const RouterLossGradient&, const Routing&, const Saved&,
                const InputGradientReady& dx_ready) const;

  /// Copies of tokens that experts had no room for.
  std::int64_t num_dropped(const Saved&) const;

 private:
  void route(const Context&, const Sequences&, Tensor x, const Routing&, Saved&) const;
  void jitter(const Context&, const Sequences&, Tensor logits, const Routing&) const;
  void router_backward(const Context&, const Sequences&, Tensor dx, Tensor x, Tensor dweight,
                       const RouterLossGradient&, const Routing&, const Saved&) const;
  std::int64_t capacity(std::int64_t tokens) const;

  std::int64_t num_experts_, top_k_, layer_;
  bool renormalize_, balanced_;
  double capacity_factor_;
  float jitter_;
  const Weight *router_, *gate_up_, *down_;
};

}  // namespace jamba

#pragma once
#include <optional>

#include "trainer/model/context.h"
#include "trainer/model/model_config.h"
#include "trainer/model/parameters.h"

namespace jamba {

/// Noise on the router's logits: a function of (seed, step, layer, row). Absent outside training.
struct RouterNoise {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::int64_t first_row = 0;  // place of this microbatch's first token among the step's tokens
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

/// Dropless mixture of experts: softmax router, top-k, SwiGLU experts.
class Moe {
 public:
  /// prefix: "model.layers.3.feed_forward."; layer: seeds the router's noise.
  Moe(const ModelConfig&, const Parameters&, const std::string& prefix, std::int64_t layer);

  struct Saved {
    Tensor logits, probs, index, weight, row_of_slot, slot_of_row, offsets, gate_up, rows_out;
    RouterStatistics statistics;
    RouterNoise noise;
    bool has_noise = false;
  };
  /// x, y [tokens, hidden]. Writes the statistics of this microbatch (recompute writes the same).
  void forward(const Context&, Tensor y, Tensor x, const RouterStatistics&,
               const std::optional<RouterNoise>&, Saved&) const;
  /// x: what forward had. dx overwrites; weights' gradients accumulate.
  void backward(const Context&, Tensor dx, Tensor dy, Tensor x, const RouterLossGradient&,
                const Saved&) const;

 private:
  void route(const Context&, Tensor x, Saved&) const;
  void router_backward(const Context&, Tensor dx, Tensor x, Tensor dweight,
                       const RouterLossGradient&, const Saved&) const;

  std::int64_t num_experts_, top_k_, layer_;
  bool renormalize_;
  float jitter_;
  Weight router_, gate_up_, down_;
};

}  // namespace jamba

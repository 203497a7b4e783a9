#pragma once
// The whole model: embedding, layers, head; forward, backward, and generation.

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "trainer/model/block.h"
#include "trainer/model/lm_head.h"

namespace jamba {

/// One microbatch. ids, labels int32 [batch, seq]; labels are already shifted: position t's label
/// is the token to predict there, or -100.
struct Microbatch {
  Sequences sequences;
  Tensor ids, labels;
};

/// What turns sums over this microbatch into means over the global batch of a step.
struct LossScale {
  double token = 1;     // 1 / targets in the global batch
  double sequence = 1;  // 1 / sequences in the global batch
};

/// Sums over one microbatch. Multiplied by LossScale and summed over microbatches and ranks, they
/// are the step's losses (without coefficients).
struct LossSums {
  double nll = 0;  // over targets
  double targets = 0;
  double aux = 0;         // over sequences
  double z = 0;           // over sequences: mean over layers and tokens of logsumexp^2
  double activation = 0;  // over sequences: mean over layers, tokens and channels of the square

  LossSums& operator+=(const LossSums&);
};

enum class Recomputation { off, on };

/// Ownership: refers to Parameters, owns none.
class JambaModel {
 public:
  JambaModel(const ModelConfig&, const Parameters&);

  /// State of one microbatch between forward and backward; tensors lie in ctx.activations.
  struct Saved {
    std::vector<Block::Saved> blocks;
    std::vector<Tensor> hidden;      // [layers + 1]: input of each layer, and the last output
    Tensor prob_sum, counts, z_sum;  // [moe layers, groups, experts], z_sum [moe layers, groups]
  };
  Saved make_saved() const;

  /// Runs embedding and layers. With recomputation only each layer's input is kept.
  void forward(const Context&, const Microbatch&, const std::optional<RouterNoise>&, Recomputation,
               Saved&) const;
  /// Output of the head for the tokens of a forward: logits [tokens, vocab].
  void logits(const Context&, Tensor logits, Tensor final_normed, const Saved&) const;
  /// Loss of each token of a forward: float32 [tokens], 0 where there is no target.
  void token_losses(const Context&, Tensor loss, const Microbatch&, const Saved&) const;
  /// Sums of the losses of a forward, no gradients.
  LossSums loss(const Context&, const Microbatch&, const Saved&) const;

  /// Forward, loss and backward of one microbatch. Gradients are those of
  ///   nll * token + sequence * (aux_coef * aux + z_coef * z + activation_coef * activation),
  /// added to what the buffers hold (or overwriting it, see Context::weight_gradients).
  /// on_ready(offset): all gradients at or above this element of the flat buffer are final.
  LossSums train(const Context&, const Microbatch&, const LossScale&,
                 const std::optional<RouterNoise>&, Recomputation, Saved&,
                 const std::function<void(std::int64_t)>& on_ready) const;

  /// Adds how often each expert was chosen in the last forward: counts [moe layers * experts].
  void add_expert_counts(const Saved&, std::span<std::int64_t> counts) const;

  /// Zeroes the gradients that a first microbatch does not overwrite.
  void start_gradients(Stream&) const;

  /// States of all layers before the first token of one sequence of at most `capacity` tokens.
  std::vector<MixerState> make_states(Stream&, Arena&, std::int64_t capacity) const;
  /// logits [seq, vocab] of the next tokens of one sequence; advances the states.
  void infer(const Context&, Tensor logits, const Microbatch&, std::vector<MixerState>&) const;

  const ModelConfig& config() const { return config_; }
  std::int64_t num_moe_layers() const { return num_moe_layers_; }

 private:
  std::int64_t groups(const Sequences&) const;
  RouterStatistics statistics(const Saved&, std::int64_t moe_layer, const Sequences&) const;
  void run_block(const Context&, const Microbatch&, std::size_t layer,
                 const std::optional<RouterNoise>&, Tensor y, Saved&) const;
  void backward(const Context&, const Microbatch&, const LossScale&, Tensor dx,
                const std::optional<RouterNoise>&, Recomputation, Saved&, LossSums&,
                const std::function<void(std::int64_t)>& on_ready) const;
  /// Balancing losses from the statistics; dprobs [moe layers, groups, experts] if present.
  void auxiliary_losses(const Context&, const Sequences&, const Saved&, Tensor dprobs,
                        float dprobs_scale, LossSums&) const;
  double activation_square(const Context&, const Sequences&, const Saved&) const;

  ModelConfig config_;
  const Parameters& parameters_;
  Weight embedding_;
  std::vector<Block> blocks_;
  std::vector<std::int64_t> moe_index_;  // [layers]: place among the mixtures, -1 for dense
  std::int64_t num_moe_layers_ = 0;
  LmHead head_;
};

}  // namespace jamba

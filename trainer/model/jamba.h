#pragma once
// A run of consecutive layers, with the embedding before the first and the head behind the last:
// the whole model, or a chunk of it on one pipeline stage. Forward, backward, and generation.

#include <span>
#include <vector>

#include "trainer/model/block.h"
#include "trainer/model/lm_head.h"
#include "trainer/model/losses.h"
#include "trainer/model/stage_layout.h"

namespace jamba {

/// One microbatch, this rank's tokens of it. ids, labels int32 [batch, seq]; labels are already
/// shifted: position t's label is the token to predict there, or -100.
struct Microbatch {
  Sequences sequences;
  Tensor ids, labels;
  Routing routing;
};

enum class Recomputation { off, on };

/// Ownership: refers to Parameters, owns none.
/// The residual stream has the rows of this rank (parallel/tensor_parallel.h).
class JambaModel {
 public:
  JambaModel(const ModelConfig&, Parameters&, const Chunk&);
  /// All layers.
  JambaModel(const ModelConfig&, Parameters&);

  /// State of one microbatch between forward and backward; tensors lie in ctx.activations.
  struct Saved {
    std::vector<Block::Saved> blocks;
    std::vector<Tensor> hidden;  // [layers + 1]: input of each layer, and the last output
    /// [mixtures, groups, experts], z_sum [mixtures, groups]: of this rank's tokens. Where the
    /// auxiliary loss pools all layers, mixtures of earlier chunks come first.
    Tensor prob_sum, counts, z_sum;
    Tensor
        dprobs;  // of the auxiliary loss: [mixtures of this chunk, or 1 for all, groups, experts]
  };

  // A microbatch's way through a chunk:
  //   begin; receive into inputs(); forward; send outputs()
  //   receive into output_gradients(); or, with the head, start_backward
  //   backward; send input_gradients()

  void begin(const Context&, const Microbatch&, Saved&) const;
  /// What the previous chunk sends: the residual stream, and statistics of its mixtures where the
  /// auxiliary loss pools them. Nothing with the embedding.
  std::vector<Tensor> inputs(const Saved&) const;
  std::vector<Tensor> outputs(const Saved&) const;
  /// Runs embedding and layers. With recomputation only each layer's input is kept.
  void forward(const Context&, const Microbatch&, Recomputation, Saved&) const;

  /// Memory for the gradient of the last output, which backward turns into that of the first input.
  Tensor begin_backward(const Context&, const Microbatch&, Saved&) const;
  /// Loss and gradient of the head, for a chunk that has it: gradients are those of
  ///   nll * token + sequence * (aux_coef * aux + z_coef * z + activation_coef * activation).
  void head_backward(const Context&, const Microbatch&, const LossScale&, Tensor dx, Saved&,
                     LossSums&) const;
  /// What the next chunk sends back.
  std::vector<Tensor> output_gradients(const Saved&, Tensor dx) const;
  std::vector<Tensor> input_gradients(const Saved&, Tensor dx) const;
  void backward(const Context&, const Microbatch&, const LossScale&, Tensor dx, Recomputation,
                Saved&, LossSums&) const;

  // Without backward.

  /// Logits of the head [tokens, vocab of this rank]; final_normed [rows, hidden].
  void logits(const Context&, Tensor logits, Tensor final_normed, const Saved&) const;
  /// Loss of each token of a forward: float32 [tokens], 0 where there is no target.
  void token_losses(const Context&, Tensor loss, const Microbatch&, const Saved&) const;
  /// Adds them to the sums.
  void add_losses(const Context&, const Microbatch&, const Saved&, LossSums&) const;

  /// Adds how often each expert was chosen in the last forward: counts [all mixtures, experts].
  void add_expert_counts(Stream&, const Saved&, std::span<std::int64_t> counts) const;
  /// Copies of tokens that experts had no room for in the last forward, or since it was recomputed.
  std::int64_t num_dropped(const Saved&) const;

  /// States of all layers before the first token of one sequence of at most `capacity` tokens.
  std::vector<MixerState> make_states(Stream&, Arena&, std::int64_t capacity) const;
  /// logits [seq, vocab] of the next tokens of one sequence; advances the states. One rank only.
  void infer(const Context&, Tensor logits, const Microbatch&, std::vector<MixerState>&) const;

  const ModelConfig& config() const { return config_; }
  const Chunk& chunk() const { return chunk_; }
  const LmHead& head() const { return *head_; }

 private:
  bool pools_balance() const;
  void add_token_losses(Stream&, const Tensor& loss, const Tensor& labels, LossSums&) const;
  bool counts_losses() const { return parameters_.mesh().tp().rank() == 0; }
  RouterStatistics statistics(const Saved&, std::size_t layer, const Sequences&) const;
  RouterLossGradient router_gradient(const Saved&, std::size_t layer, const Sequences&,
                                     const LossScale&) const;
  void run_block(const Context&, const Microbatch&, std::size_t layer, Saved&) const;
  void balance(const Context&, const Microbatch&, const LossScale&, Saved&, LossSums&) const;
  void add_layer_losses(const Context&, const Saved&, LossSums&) const;

  ModelConfig config_;
  Parameters& parameters_;
  Chunk chunk_;
  TensorRegion region_;
  const Parameters::Entry* embedding_ = nullptr;
  std::vector<Block> blocks_;
  std::vector<std::int64_t> mixture_;  // [layers]: place among all mixtures, -1 for dense
  std::int64_t num_mixtures_ = 0;      // of the model
  std::int64_t first_mixture_ = 0, own_mixtures_ = 0;
  std::optional<LmHead> head_;
};

}  // namespace jamba

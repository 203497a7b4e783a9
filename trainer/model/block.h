#pragma once
#include <optional>
#include <string>
#include <variant>

#include "parallel/tensor_parallel.h"
#include "trainer/model/attention_mixer.h"
#include "trainer/model/mamba_mixer.h"
#include "trainer/model/mlp.h"
#include "trainer/model/moe.h"

namespace jamba {

/// What one layer carries from token to token in generation.
using MixerState = std::variant<KvCache, MambaState>;

/// One layer: x += mixer(norm(x)); x += ffn(norm(x)). Mixer and feed-forward are regions of tensor
/// parallelism (parallel/tensor_parallel.h); the residual stream x has the rows of this rank.
class Block {
 public:
  Block(const ModelConfig&, const Parameters&, LayerKind, std::int64_t layer);

  struct Saved {
    Tensor x, rstd_mixer, sum, rstd_ffn;
    std::variant<AttentionMixer::Saved, MambaMixer::Saved> mixer;
    std::variant<Mlp::Saved, Moe::Saved> ffn;
  };

  /// x, y [rows, hidden]. statistics is read by mixtures only.
  void forward(const Context&, const Sequences&, Tensor y, Tensor x, const RouterStatistics&,
               const Routing&, Saved&) const;
  /// Turns the gradient of y into the gradient of x, in place.
  void backward(const Context&, const Sequences&, Tensor dy, const RouterLossGradient&,
                const Routing&, const Saved&) const;

  /// Forward of the next tokens of one sequence; advances the state.
  void infer(const Context&, const Sequences&, Tensor y, Tensor x, MixerState&) const;
  MixerState make_state(Stream&, Arena&, DType, std::int64_t capacity) const;

  bool has_experts() const { return std::holds_alternative<Moe>(ffn_); }
  /// Copies of tokens that experts had no room for in a forward.
  std::int64_t num_dropped(const Saved&) const;

 private:
  Tensor normed(const Context&, Tensor x, Tensor rstd, const Weight&) const;
  void feed_forward(const Context&, const Sequences&, Tensor y, Tensor mixer_out, Tensor x,
                    const RouterStatistics&, const Routing&, Saved&) const;
  /// Runs a region's forward between its two ends: y [rows, hidden] from in [rows, hidden].
  template <class Forward>
  void region_forward(const Context&, const Sequences&, Tensor y, Tensor in, Forward&&) const;
  /// Runs a region's backward between its two ends: dx [rows, hidden] from dy [rows, hidden].
  template <class Backward>
  void region_backward(const Context&, const Sequences&, Tensor dx, Tensor dy, Tensor in,
                       Backward&&) const;

  std::string forward_name_, backward_name_;  // of ranges
  std::int64_t num_experts_;
  float eps_;
  TensorRegion region_;
  const Weight *mixer_norm_, *ffn_norm_;
  std::variant<AttentionMixer, MambaMixer> mixer_;
  std::variant<Mlp, Moe> ffn_;
};

}  // namespace jamba

#pragma once
#include "kernels/attention/attention.h"
#include "trainer/model/context.h"
#include "trainer/model/model_config.h"
#include "trainer/model/parameters.h"

namespace jamba {

/// Keys and values of the tokens so far, for generation of one sequence.
/// Shapes: k, v [capacity, kv_heads * head_dim]; the first `length` rows are filled.
struct KvCache {
  Tensor k, v;
  std::int64_t length = 0;
};

/// Causal attention with grouped query heads; no biases, and no position signal unless RoPE is on.
/// Parallel: tensor-parallel ranks have their own heads. Context-parallel ranks exchange tokens for
/// heads, or gather keys and values where heads do not divide.
class AttentionMixer {
 public:
  /// prefix: "model.layers.4.self_attn."
  AttentionMixer(const ModelConfig&, const Parameters&, const std::string& prefix);

  /// As attention itself has them: of the tokens and heads that this rank attends with.
  struct Saved {
    Tensor q, k, v, out, lse;
  };
  /// x [tokens, hidden]; y [tokens, hidden], this rank's partial sum.
  void forward(const Context&, const Sequences&, Tensor y, Tensor x, Saved&) const;
  /// x: what forward had. dx, this rank's partial sum, overwrites; dx_ready is called when it is
  /// complete.
  void backward(const Context&, const Sequences&, Tensor dx, Tensor dy, Tensor x, const Saved&,
                const InputGradientReady& dx_ready) const;

  /// Forward of the next tokens of one sequence, appended to the cache.
  void infer(const Context&, const Sequences&, Tensor y, Tensor x, KvCache&) const;
  /// Shape of a cache for `capacity` tokens.
  KvCache make_cache(Arena&, DType, std::int64_t capacity) const;

 private:
  struct Projections {
    Tensor q, k, v;
  };
  /// How attention runs on this rank.
  struct Plan;
  Plan plan(const Context&, const Sequences&) const;
  void project(const Context&, const Sequences&, const Projections&, Tensor x) const;
  void attend(const Context&, const Plan&, Tensor out, const Projections&, Saved&) const;
  void attend_backward(const Context&, const Plan&, const Projections& gradients, Tensor dout,
                       const Saved&) const;

  std::int64_t num_heads_, num_kv_heads_, head_dim_;  // of this rank
  float scale_;
  bool rope_;
  double rope_theta_;
  const Weight *q_, *k_, *v_, *o_;
};

}  // namespace jamba

#pragma once
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
class AttentionMixer {
 public:
  /// prefix: "model.layers.4.self_attn."
  AttentionMixer(const ModelConfig&, const Parameters&, const std::string& prefix);

  struct Saved {
    Tensor q, k, v, out, lse;
  };
  /// x, y [tokens, hidden].
  void forward(const Context&, const Sequences&, Tensor y, Tensor x, Saved&) const;
  /// x: what forward had.
  void backward(const Context&, const Sequences&, Tensor dx, Tensor dy, Tensor x,
                const Saved&) const;

  /// Forward of the next tokens of one sequence, appended to the cache.
  void infer(const Context&, const Sequences&, Tensor y, Tensor x, KvCache&) const;
  /// Shape of a cache for `capacity` tokens.
  KvCache make_cache(Arena&, DType, std::int64_t capacity) const;

 private:
  void project(const Context&, const Sequences&, Tensor q, Tensor k, Tensor v, Tensor x) const;

  std::int64_t num_heads_, num_kv_heads_, head_dim_;
  float scale_;
  bool rope_;
  double rope_theta_;
  Weight q_, k_, v_, o_;
};

}  // namespace jamba

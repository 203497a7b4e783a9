#pragma once
#include "trainer/model/context.h"
#include "trainer/model/model_config.h"
#include "trainer/model/parameters.h"

namespace jamba {

/// Final norm, output projection and cross-entropy. The projection runs over chunks of tokens, so
/// that no [tokens, vocab] array of a whole microbatch exists.
class LmHead {
 public:
  LmHead(const ModelConfig&, const Parameters&);

  /// logits [tokens, vocab] in x's dtype; normed [tokens, hidden] receives the final norm's output.
  void logits(const Context&, Tensor logits, Tensor normed, Tensor x) const;

  /// Loss of each token: loss, float32 [tokens], 0 where labels (int32 [tokens]) say ignore.
  void loss(const Context&, Tensor loss, Tensor x, Tensor labels) const;

  /// The same, and gradients of scale * sum(loss): dx [tokens, hidden] overwrites, the weights'
  /// gradients accumulate.
  void loss_and_gradient(const Context&, Tensor loss, Tensor dx, Tensor x, Tensor labels,
                         float scale) const;

 private:
  void norm(const Context&, Tensor normed, Tensor rstd, Tensor x) const;
  std::int64_t chunk_tokens(std::int64_t tokens) const;

  std::int64_t vocab_size_;
  float eps_;
  Weight norm_, projection_;
};

}  // namespace jamba

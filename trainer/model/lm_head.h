#pragma once
#include "parallel/tensor_parallel.h"
#include "trainer/model/context.h"
#include "trainer/model/model_config.h"
#include "trainer/model/parameters.h"

namespace jamba {

/// Final norm, output projection and cross-entropy. The projection runs over chunks of tokens, so
/// that no [tokens, vocab] array of a whole microbatch exists.
/// Parallel: tensor-parallel ranks have their own part of the vocabulary, not all of equal size,
/// and exchange three numbers a token. x has the rows of this rank's residual stream.
class LmHead {
 public:
  LmHead(const ModelConfig&, const Parameters&);

  /// logits [tokens, vocab of this rank] in x's dtype; normed [rows, hidden] receives the final
  /// norm's output.
  void logits(const Context&, Tensor logits, Tensor normed, Tensor x) const;

  /// Loss of each token: loss, float32 [tokens], 0 where labels (int32 [tokens]) say ignore.
  void loss(const Context&, Tensor loss, Tensor x, Tensor labels) const;

  /// The same, and gradients of scale * sum(loss): dx [rows, hidden] overwrites, the weights'
  /// gradients accumulate.
  void loss_and_gradient(const Context&, Tensor loss, Tensor dx, Tensor x, Tensor labels,
                         float scale) const;

  /// Columns of the logits that this rank has.
  std::int64_t first_id() const { return first_id_; }
  std::int64_t num_ids() const { return num_ids_; }

 private:
  void norm(const Context&, Tensor normed, Tensor rstd, Tensor x) const;
  void chunk_loss(const Context&, Tensor loss, Tensor lse, Tensor logits, Tensor normed,
                  Tensor labels) const;
  std::int64_t chunk_tokens(std::int64_t tokens) const;

  std::int64_t vocab_size_, first_id_, num_ids_;
  float eps_;
  TensorRegion region_;
  const Weight *norm_, *projection_;
};

}  // namespace jamba

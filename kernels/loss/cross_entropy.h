#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Label of a position that has no target.
inline constexpr std::int32_t kIgnoreLabel = -100;

/// What forward leaves of each token: the largest of this rank's logits, the sum of
/// exp(logit - largest), and the label's logit, 0 if another rank has it or there is no label.
inline constexpr std::int64_t kCrossEntropyStats = 3;

// Negative log-likelihood of each label under softmax(logits), where each rank holds the columns
// [first_id, first_id + vocab_local) of the logits; they tile [0, vocab_size). Ids of labels count
// over the whole vocabulary. A rank may hold no column; one rank alone holds all from 0 on.
// Dtypes: logits float32 or bfloat16; labels int32; all else float32. Arithmetic in float32.
// Errors: LogicError if shapes disagree.
// Determinism: bitwise for any thread count.

/// Shapes: stats [tokens, kCrossEntropyStats]; logits [tokens, vocab_local]; labels [tokens].
/// Errors: LogicError if a label is outside [0, vocab_size) and not kIgnoreLabel; on CUDA such a
/// label counts as another rank's.
void cross_entropy_forward(Stream&, Tensor stats, Tensor logits, Tensor labels,
                           std::int64_t first_id, std::int64_t vocab_size);

/// Joins the ranks' statistics, in their order.
/// Shapes: loss [tokens] (0 where the label is kIgnoreLabel); lse [tokens], for backward;
///         stats_of_all [ranks, tokens, kCrossEntropyStats]; labels [tokens].
void cross_entropy_combine(Stream&, Tensor loss, Tensor lse, Tensor stats_of_all, Tensor labels);

/// Replaces logits by their gradient, in place: scale * (softmax(logits) - onehot(label)), or 0
/// where the label is kIgnoreLabel. No second [tokens, vocab_local] array exists.
/// Shapes: logits, labels as in forward; lse from combine.
/// scale: usually 1 / number of targets in the global batch.
void cross_entropy_backward(Stream&, Tensor logits, Tensor lse, Tensor labels,
                            std::int64_t first_id, float scale);

}  // namespace jamba

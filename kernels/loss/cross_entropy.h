#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Label of a position that has no target.
inline constexpr std::int32_t kIgnoreLabel = -100;

/// Negative log-likelihood of each label under softmax(logits).
/// Shapes: loss [tokens] (0 where the label is kIgnoreLabel); lse [tokens], saved for backward;
///         logits [tokens, vocab]; labels [tokens].
/// Dtypes: loss, lse float32; logits float32 or bfloat16; labels int32. Arithmetic in float32.
/// Errors: LogicError if shapes disagree or a label is outside [0, vocab) and not kIgnoreLabel.
void cross_entropy_forward(Stream&, Tensor loss, Tensor lse, Tensor logits, Tensor labels);

/// Replaces logits by their gradient, in place: scale * (softmax(logits) - onehot(label)), or 0
/// where the label is kIgnoreLabel. No second [tokens, vocab] array exists.
/// scale: usually 1 / number of targets in the global batch.
void cross_entropy_backward(Stream&, Tensor logits, Tensor lse, Tensor labels, float scale);

}  // namespace jamba

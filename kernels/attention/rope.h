#pragma once
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

enum class Rotation { forward, backward };

/// Rotary position embedding, in place: pairs (i, i + head_dim/2) of every head turn by
/// position * theta^(-2i/head_dim). `backward` turns the other way, which is the gradient.
/// Shapes: x [tokens, heads * head_dim]; positions [tokens].
/// Dtypes: x float32 or bfloat16; positions int32. Angles in double, rotation in float32.
/// Errors: LogicError if head_dim is odd or shapes disagree.
/// Source: arXiv:2104.09864, in the half-split layout that Llama's Hugging Face code uses.
void rope(Stream&, Tensor x, Tensor positions, std::int64_t head_dim, double theta, Rotation);

}  // namespace jamba

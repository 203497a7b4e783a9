#pragma once
#include <cstdint>

#include "trainer/model/parameters.h"

namespace jamba {

/// Fills the master weights that this rank owns with their starting values; ranks that share a
/// unit's values call it together.
/// Each element is a function of (seed, parameter name, index in the logical tensor) alone, so that
/// every mesh draws the same model.
/// hugging_face: matrices, embedding, router, convolution N(0, initializer_range^2); biases 0;
///   norms and D 1; A_log[i, n] = log(n + 1); the padding row of the embedding 0.
/// mamba: the mixers as the original Mamba instead: dt_proj.weight U(+-R^-0.5); dt bias such that
///   softplus(bias) is log-uniform in [1e-3, 0.1]; in_proj, x_proj, conv U(+-fan_in^-0.5);
///   out_proj the same over sqrt(num_hidden_layers).
/// Source: Hugging Face JambaPreTrainedModel._init_weights; state-spaces/mamba mamba_simple.py.
void initialize(Parameters&, const ModelConfig&, std::uint64_t seed);

}  // namespace jamba

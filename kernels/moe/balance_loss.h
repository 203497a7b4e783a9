#pragma once
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

/// Over what the load-balancing loss averages before it multiplies.
enum class BalancePooling { per_layer, all_layers };

/// The load-balancing loss of each group of tokens, and its gradient towards the router's
/// probabilities: aux = experts * sum_e f_e P_e, f_e the number of times e was chosen per token
/// (sums to k), P_e the mean probability of e. f is constant for the gradient.
/// all_layers: f and P average over the tokens of all layers together (Hugging Face's Jamba);
/// per_layer: each layer has its own product (arXiv:2101.03961).
/// Shapes: aux [1 or layers, groups]; dprobs, prob_sum, counts [layers, groups, experts]. dprobs is
///         the same for each of the group's tokens.
/// Dtypes: counts int64, else float32.
/// scale: multiplies dprobs, usually coefficient / (groups in the global batch * products a group).
/// Errors: LogicError if shapes disagree or tokens_per_group <= 0.
void balance_loss(Stream&, Tensor aux, Tensor dprobs, Tensor prob_sum, Tensor counts,
                  std::int64_t tokens_per_group, BalancePooling, float scale);

}  // namespace jamba

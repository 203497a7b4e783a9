#pragma once
#include <cstdint>

#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Softmax over all experts, then the k largest probabilities of each token.
/// Shapes: probs, logits [tokens, experts]; index, weight [tokens, k], by descending probability.
/// Dtypes: probs, logits, weight float32; index int32.
/// renormalize: divide the k weights by their sum (Mixtral); off, they are the raw softmax values
///              (Jamba).
/// Ties: the lower expert wins. A token with a NaN logit gets NaN weights and experts 0 .. k - 1.
/// Errors: LogicError if shapes disagree or k > experts.
void router_forward(Stream&, Tensor probs, Tensor index, Tensor weight, Tensor logits,
                    bool renormalize);

/// Replaces the choice of experts by turns, so that every expert gets the same load whatever the
/// router says; for benchmarks. Copy (token, slot) goes to expert ((first_row + token) * k + slot)
/// modulo experts, with the weight that the router gives it.
/// Shapes, dtypes, renormalize: as router_forward.
void balance_routing(Stream&, Tensor index, Tensor weight, Tensor probs, std::int64_t first_row,
                     bool renormalize);

/// Gradients that reach the router's logits, all of them: through the k weights, and through
/// dprobs (the load-balancing loss, constant over tokens) and the z-loss.
///   dlogits = softmax'(scatter(dweight) + dprobs) + z_scale * 2 * lse * probs
/// Shapes: dlogits, probs, logits [tokens, experts]; dweight, index [tokens, k];
///         dprobs [experts] or absent.
/// z_scale: coefficient / number of tokens; 0 for none. lse = logsumexp(logits of the token).
void router_backward(Stream&, Tensor dlogits, Tensor dweight, Tensor dprobs, Tensor probs,
                     Tensor index, Tensor logits, bool renormalize, float z_scale);

/// Sums over tokens that the balancing losses and the load figures need.
/// Shapes: prob_sum [experts] += sum of probs; counts [experts] += times chosen;
///         z_sum [1] += sum of logsumexp(logits)^2.
/// Dtypes: prob_sum, z_sum float32; counts int64.   Determinism: fixed blocks of tokens in order.
void router_statistics(Stream&, Arena& scratch, Tensor prob_sum, Tensor counts, Tensor z_sum,
                       Tensor probs, Tensor index, Tensor logits);

/// Multiplies logits by uniform noise in [1 - amount, 1 + amount] (arXiv:2101.03961 does so with
/// the router's input; on logits it needs no second copy). Its gradient is the same multiplication.
/// The noise is a function of (seed, stream, first_row + row, expert) alone.
/// Errors: LogicError unless 0 <= amount < 1.
void router_jitter(Stream&, Tensor logits, float amount, std::uint64_t seed, std::uint64_t stream,
                   std::int64_t first_row);

}  // namespace jamba

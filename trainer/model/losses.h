#pragma once
// The losses of a step: exact sums while ranks and microbatches gather them, then means.

#include <cstdint>
#include <vector>

#include "kernels/core/exact_sum.h"
#include "parallel/comm/communicator.h"
#include "trainer/model/model_config.h"

namespace jamba {

/// What turns sums over microbatches into means over the global batch of a step.
struct LossScale {
  double token = 1;     // 1 / targets in the global batch
  double sequence = 1;  // 1 / sequences in the global batch
};

/// Sums over what one rank has computed; ranks that compute the same count once. Exact, so that the
/// losses do not depend on which rank computed what.
struct LossSums {
  ExactSum nll;         // over targets
  ExactSum aux;         // products of averages, by group of tokens and, per layer, by mixture
  ExactSum z;           // logsumexp(router logits)^2, over mixtures and tokens
  ExactSum activation;  // squares of the layers' outputs
  std::int64_t targets = 0;

  /// The sums of all ranks, on all of them.
  void all_reduce(Stream&, Communicator&);
};

/// Means over the global batch, without coefficients; `total` is what gradients are of.
struct Losses {
  double lm = 0, aux = 0, z = 0, activation = 0, total = 0;
};

/// batch, seq: of a microbatch, whole sequences.
Losses mean_losses(const LossSums&, const LossScale&, const ModelConfig&, std::int64_t batch,
                   std::int64_t seq);

/// Groups of tokens over which a microbatch's routing is averaged.
std::int64_t balance_groups(const ModelConfig&, std::int64_t batch);

}  // namespace jamba

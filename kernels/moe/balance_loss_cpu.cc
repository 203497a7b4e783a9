#include "kernels/moe/balance_loss.h"

namespace jamba::cpu {

// Some hundred numbers in all: plain loops, in double.
void balance_loss(Stream&, Tensor aux, Tensor dprobs, Tensor prob_sum, Tensor counts,
                  std::int64_t tokens_per_group, BalancePooling pooling, float scale) {
  const std::int64_t layers = counts.dim(0), groups = counts.dim(1), experts = counts.dim(2);
  const auto at = [&](std::int64_t layer, std::int64_t group, std::int64_t expert) {
    return (layer * groups + group) * experts + expert;
  };
  const bool pooled = pooling == BalancePooling::all_layers;
  const std::int64_t num_products = pooled ? 1 : layers;  // products of averages in one group
  const std::int64_t span = pooled ? layers : 1;          // layers that one product averages
  const double rows = static_cast<double>(span * tokens_per_group);
  const auto weight = static_cast<double>(experts);

  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t p = 0; p < num_products; ++p) {
      double total = 0;
      for (std::int64_t e = 0; e < experts; ++e) {
        double chosen = 0, probability = 0;
        for (std::int64_t l = p; l < p + span; ++l) {
          chosen += static_cast<double>(counts.ptr<std::int64_t>()[at(l, g, e)]);
          probability += static_cast<double>(prob_sum.ptr<float>()[at(l, g, e)]);
        }
        total += weight * (chosen / rows) * (probability / rows);
        const double slope = weight * (chosen / rows) / rows;
        for (std::int64_t l = p; l < p + span; ++l) {
          dprobs.ptr<float>()[at(l, g, e)] = static_cast<float>(slope) * scale;
        }
      }
      aux.ptr<float>()[p * groups + g] = static_cast<float>(total);
    }
  }
}

}  // namespace jamba::cpu

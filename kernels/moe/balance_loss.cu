#include "kernels/moe/balance_loss.h"

#include "kernels/core/cuda/launch.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;

/// A thread a product of averages: some hundred numbers in all, so plain loops, in double as on the
/// CPU.
__global__ void __launch_bounds__(kThreads)
    balance_kernel(float* aux, float* dprobs, const float* prob_sum, const std::int64_t* counts,
                   Index groups, Index experts, Index products, Index span, double rows,
                   float scale) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= products * groups) return;
  const Index product = i / groups, group = i % groups;
  const double weight = static_cast<double>(experts);
  double total = 0.0;
  for (Index e = 0; e < experts; ++e) {
    double chosen = 0.0, probability = 0.0;
    for (Index layer = product; layer < product + span; ++layer) {
      const Index at = (layer * groups + group) * experts + e;
      chosen += static_cast<double>(counts[at]);
      probability += static_cast<double>(prob_sum[at]);
    }
    total += weight * (chosen / rows) * (probability / rows);
    const double slope = weight * (chosen / rows) / rows;
    for (Index layer = product; layer < product + span; ++layer)
      dprobs[(layer * groups + group) * experts + e] = static_cast<float>(slope) * scale;
  }
  aux[i] = static_cast<float>(total);
}

}  // namespace

void balance_loss(Stream& stream, Tensor aux, Tensor dprobs, Tensor prob_sum, Tensor counts,
                  std::int64_t tokens_per_group, BalancePooling pooling, float scale) {
  const std::int64_t layers = counts.dim(0), groups = counts.dim(1);
  const bool pooled = pooling == BalancePooling::all_layers;
  const std::int64_t products = pooled ? 1 : layers, span = pooled ? layers : 1;
  launch<kThreads>(stream, balance_kernel, {ceil_div(products * groups, kThreads)}, 0,
                   aux.ptr<float>(), dprobs.ptr<float>(), prob_sum.ptr<float>(),
                   counts.ptr<std::int64_t>(), groups, counts.dim(2), products, span,
                   static_cast<double>(span * tokens_per_group), scale);
}

}  // namespace jamba::cuda

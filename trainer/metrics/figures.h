#pragma once
// Figures derived from what a step counts.

#include <cstdint>
#include <span>

namespace jamba {

/// Share of the peak that a run's matrix products reach: flops_per_token * tokens_per_second /
/// (peak_gflops * 1e9). FLOPs count a multiply-add as two, and forward and backward but no
/// recomputation; tokens and peak are both of all ranks. 0 if no peak is known.
double model_flops_utilization(double flops_per_token, double tokens_per_second,
                               double peak_gflops);

/// How evenly the experts are used.
struct ExpertLoad {
  double max_over_mean = 0;  // of the worst layer; 1 is even, the number of experts is collapse
  double entropy = 0;        // nats, mean over layers; log(experts) is even, 0 is collapse
};

/// Shapes: counts [layers, experts], times each expert was chosen. A layer without any choice
/// counts as even. No layers: all zero.
/// Errors: LogicError if counts is no multiple of experts, or experts < 1.
ExpertLoad expert_load(std::span<const std::int64_t> counts, std::int64_t experts);

}  // namespace jamba

#include "trainer/metrics/figures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/errors.h"

namespace jamba {

double model_flops_utilization(double flops_per_token, double tokens_per_second,
                               double peak_gflops) {
  if (peak_gflops <= 0) return 0;
  return flops_per_token * tokens_per_second / (peak_gflops * 1e9);
}

namespace {

ExpertLoad layer_load(std::span<const std::int64_t> counts) {
  const auto experts = static_cast<double>(counts.size());
  const auto total =
      static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  if (total == 0) return {1, std::log(experts)};
  ExpertLoad load{
      static_cast<double>(*std::max_element(counts.begin(), counts.end())) * experts / total, 0};
  for (const std::int64_t count : counts) {
    const double share = static_cast<double>(count) / total;
    if (count > 0) load.entropy -= share * std::log(share);
  }
  return load;
}

}  // namespace

ExpertLoad expert_load(std::span<const std::int64_t> counts, std::int64_t experts) {
  JAMBA_CHECK(experts >= 1, "experts {}", experts);
  const auto width = static_cast<std::size_t>(experts);
  JAMBA_CHECK(counts.size() % width == 0, "{} counts for {} experts", counts.size(), experts);
  ExpertLoad all;
  const std::size_t layers = counts.size() / width;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const ExpertLoad one = layer_load(counts.subspan(layer * width, width));
    all.max_over_mean = std::max(all.max_over_mean, one.max_over_mean);
    all.entropy += one.entropy / static_cast<double>(layers);
  }
  return all;
}

}  // namespace jamba

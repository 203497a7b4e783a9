#include "trainer/metrics/figures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

TEST(ModelFlopsUtilization, IsWorkDoneOverWorkPossible) {
  // 6 FLOPs for each of 10M parameters a token, 1500 tokens a second: 90 of 120 GFLOP/s.
  EXPECT_DOUBLE_EQ(model_flops_utilization(6 * 10e6, 1500, 120), 0.75);
  EXPECT_DOUBLE_EQ(model_flops_utilization(6 * 10e6, 2 * 1500, 2 * 120), 0.75);
}

TEST(ModelFlopsUtilization, IsZeroWithoutAPeak) {
  EXPECT_EQ(model_flops_utilization(1e9, 1000, 0), 0);
}

TEST(ExpertLoad, OfEvenUseIsOneAndTheFullEntropy) {
  const std::vector<std::int64_t> counts = {5, 5, 5, 5};
  const ExpertLoad load = expert_load(counts, 4);
  EXPECT_DOUBLE_EQ(load.max_over_mean, 1);
  EXPECT_DOUBLE_EQ(load.entropy, std::log(4));
}

TEST(ExpertLoad, OfCollapseIsTheNumberOfExpertsAndNoEntropy) {
  const std::vector<std::int64_t> counts = {0, 12, 0};
  const ExpertLoad load = expert_load(counts, 3);
  EXPECT_DOUBLE_EQ(load.max_over_mean, 3);
  EXPECT_EQ(load.entropy, 0);
}

TEST(ExpertLoad, TakesTheWorstLayersLoadAndTheMeanEntropy) {
  const std::vector<std::int64_t> counts = {3, 1, 8, 0, 2, 2};
  const ExpertLoad load = expert_load(counts, 2);
  EXPECT_DOUBLE_EQ(load.max_over_mean, 2);
  const double first = -0.75 * std::log(0.75) - 0.25 * std::log(0.25);
  EXPECT_NEAR(load.entropy, (first + 0 + std::log(2)) / 3, 1e-15);
}

TEST(ExpertLoad, CountsAnUnusedLayerAsEvenAndNoLayerAsZero) {
  const std::vector<std::int64_t> unused = {0, 0};
  EXPECT_DOUBLE_EQ(expert_load(unused, 2).max_over_mean, 1);
  EXPECT_DOUBLE_EQ(expert_load(unused, 2).entropy, std::log(2));
  EXPECT_EQ(expert_load({}, 8).max_over_mean, 0);
}

TEST(ExpertLoad, RejectsCountsOfAnotherNumberOfExperts) {
  const std::vector<std::int64_t> counts = {1, 2, 3};
  EXPECT_THROW(expert_load(counts, 2), LogicError);
  EXPECT_THROW(expert_load(counts, 0), LogicError);
}

}  // namespace
}  // namespace jamba

#include <gtest/gtest.h>

#include "kernels/moe/router.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;

struct Dims {
  std::int64_t tokens, experts, k;
};

/// Any positive numbers: balance_routing does not ask whether they add up to 1.
GuardedTensor probabilities(std::int64_t tokens, std::int64_t experts) {
  std::vector<double> values = test::normal_values(tokens * experts, 1, "probs");
  for (double& value : values) value = 0.01 + value * value;
  return {DType::f32, {tokens, experts}, values};
}

struct Balanced {
  std::vector<double> index, weight;
};

/// balance_routing over rows [first_row, first_row + probs' rows).
Balanced balanced(const Tensor& probs, std::int64_t k, std::int64_t first_row, bool renormalize) {
  const GuardedTensor index(DType::i32, {probs.rows(), k}), weight(DType::f32, {probs.rows(), k});
  Stream stream = test::make_stream(1);
  balance_routing(stream, index.tensor(), weight.tensor(), probs, first_row, renormalize);
  EXPECT_TRUE(index.guards_intact() && weight.guards_intact());
  return {index.values(), weight.values()};
}

TEST(BalanceRouting, GivesEveryExpertTheSameLoadWithTheRoutersWeight) {
  for (const Dims& d : {Dims{6, 4, 2}, Dims{15, 5, 3}, Dims{3, 1, 1}, Dims{2, 7, 7}}) {
    const GuardedTensor given = probabilities(d.tokens, d.experts);
    const std::vector<double> probs = given.values();
    const Balanced raw = balanced(given.tensor(), d.k, 0, false);
    const Balanced scaled = balanced(given.tensor(), d.k, 0, true);
    EXPECT_EQ(scaled.index, raw.index);
    std::vector<double> load(static_cast<std::size_t>(d.experts));
    for (std::int64_t t = 0; t < d.tokens; ++t) {
      double sum = 0, scaled_sum = 0;
      for (std::int64_t i = t * d.k; i < (t + 1) * d.k; ++i) {
        const auto expert = static_cast<std::int64_t>(raw.index[i]);
        EXPECT_EQ(expert, i % d.experts);
        load[expert] += 1;
        EXPECT_EQ(raw.weight[i], probs[t * d.experts + expert]);
        sum += raw.weight[i];
        scaled_sum += scaled.weight[i];
      }
      EXPECT_NEAR(scaled_sum, 1, 1e-6);
      EXPECT_NEAR(scaled.weight[t * d.k] * sum, raw.weight[t * d.k], 1e-6);
    }
    EXPECT_EQ(load, std::vector<double>(load.size(), static_cast<double>(d.tokens * d.k) /
                                                         static_cast<double>(d.experts)));
  }
}

TEST(BalanceRouting, GoesOnAtFirstRow) {
  const GuardedTensor probs = probabilities(11, 5);
  const Balanced all = balanced(probs.tensor(), 2, 0, true);
  Balanced parts = balanced(probs.tensor().slice(0, 4), 2, 0, true);
  const Balanced rest = balanced(probs.tensor().slice(4, 7), 2, 4, true);
  parts.index.insert(parts.index.end(), rest.index.begin(), rest.index.end());
  parts.weight.insert(parts.weight.end(), rest.weight.begin(), rest.weight.end());
  EXPECT_EQ(parts.index, all.index);
  EXPECT_EQ(parts.weight, all.weight);
}

TEST(BalanceRouting, RejectsWhatDoesNotFit) {
  const GuardedTensor probs(DType::f32, {2, 3});
  EXPECT_NO_THROW(balanced(probs.tensor(), 3, 0, false));
  EXPECT_THROW(balanced(probs.tensor(), 4, 0, false), LogicError);
  EXPECT_THROW(balanced(probs.tensor(), 2, -1, false), LogicError);
  const GuardedTensor index(DType::i32, {2, 2}), weight(DType::f32, {2, 1});
  Stream stream = test::make_stream(1);
  EXPECT_THROW(balance_routing(stream, index.tensor(), weight.tensor(), probs.tensor(), 0, false),
               LogicError);
}

}  // namespace
}  // namespace jamba

#include "kernels/optim/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;

/// torch.optim.AdamW in double, one element.
struct Reference {
  double weight, m = 0, v = 0;

  void step(double grad, const AdamWStep& s) {
    const auto d = [](float x) { return static_cast<double>(x); };
    grad *= d(s.grad_scale);
    weight -= d(s.lr) * d(s.weight_decay) * weight;
    m = d(s.beta1) * m + (1 - d(s.beta1)) * grad;
    v = d(s.beta2) * v + (1 - d(s.beta2)) * grad * grad;
    weight -=
        d(s.lr) * (m / d(s.bias_correction1)) / (std::sqrt(v / d(s.bias_correction2)) + d(s.eps));
  }
};

AdamWStep step_number(int t) {
  AdamWStep s{.lr = 1e-2f, .weight_decay = 0.1f, .grad_scale = 0.5f};
  s.bias_correction1 = static_cast<float>(1 - std::pow(static_cast<double>(s.beta1), t));
  s.bias_correction2 = static_cast<float>(1 - std::pow(static_cast<double>(s.beta2), t));
  return s;
}

std::vector<double> gradient(std::int64_t n, int t) {
  return test::normal_values(n, static_cast<std::uint64_t>(t), "grad");
}

struct State {
  GuardedTensor weight, m, v, compute;
  explicit State(std::int64_t n)
      : weight(DType::f32, {n}, test::normal_values(n, 1, "weight")),
        m(DType::f32, {n}, std::vector<double>(static_cast<std::size_t>(n))),
        v(DType::f32, {n}, std::vector<double>(static_cast<std::size_t>(n))),
        compute(DType::bf16, {n}) {}

  void run(int steps, int threads, bool with_compute) {
    Stream stream = Stream::cpu(threads);
    for (int t = 1; t <= steps; ++t) {
      const std::int64_t n = weight.tensor().numel();
      const GuardedTensor grad(DType::f32, {n}, gradient(n, t));
      adamw(stream, weight.tensor(), m.tensor(), v.tensor(), grad.tensor(),
            with_compute ? compute.tensor() : Tensor(), step_number(t));
    }
  }
  bool guards_intact() const {
    return weight.guards_intact() && m.guards_intact() && v.guards_intact() &&
           compute.guards_intact();
  }
};

TEST(AdamW, FollowsADoubleReferenceOverSteps) {
  constexpr int kSteps = 7;
  for (const std::int64_t n : {0, 1, 7, 8, 41, 16384 + 3}) {
    State state(n);
    const std::vector<double> start = state.weight.values();
    state.run(kSteps, 2, true);
    std::vector<double> weight, m, v;
    std::vector<std::vector<double>> gradients;
    for (int t = 1; t <= kSteps; ++t) {
      gradients.push_back(GuardedTensor(DType::f32, {n}, gradient(n, t)).values());
    }
    for (std::size_t i = 0; i < start.size(); ++i) {
      Reference r{start[i]};
      for (int t = 1; t <= kSteps; ++t) {
        r.step(gradients[static_cast<std::size_t>(t - 1)][i], step_number(t));
      }
      weight.push_back(r.weight);
      m.push_back(r.m);
      v.push_back(r.v);
    }
    if (n == 0) continue;
    EXPECT_TRUE(test::worst_error(state.weight.values(), weight) <= 1e-6) << n;
    EXPECT_TRUE(test::worst_error(state.m.values(), m) <= 1e-6) << n;
    EXPECT_TRUE(test::worst_error(state.v.values(), v) <= 1e-6) << n;
    EXPECT_TRUE(state.guards_intact());
  }
}

TEST(AdamW, WritesTheRoundedWeightForComputing) {
  State state(100);
  state.run(2, 1, true);
  const auto weight = state.weight.values(), compute = state.compute.values();
  for (std::size_t i = 0; i < weight.size(); ++i) {
    const auto rounded = static_cast<float>(bfloat16(static_cast<float>(weight[i])));
    EXPECT_EQ(compute[i], static_cast<double>(rounded));
  }
}

TEST(AdamW, UpdatesTheSameWithoutAComputeCopy) {
  State with(100), without(100);
  with.run(3, 1, true);
  without.run(3, 3, false);
  EXPECT_EQ(with.weight.values(), without.weight.values());
  for (const double untouched : without.compute.values()) EXPECT_TRUE(std::isnan(untouched));
}

TEST(AdamW, OnlyDecaysWhereTheGradientIsZero) {
  const GuardedTensor w(DType::f32, {3}, {1, -2, 4}), m(DType::f32, {3}, {0, 0, 0});
  const GuardedTensor v(DType::f32, {3}, {0, 0, 0}), grad(DType::f32, {3}, {0, 0, 0});
  Stream stream = Stream::cpu(1);
  adamw(stream, w.tensor(), m.tensor(), v.tensor(), grad.tensor(), {},
        {.lr = 0.5f, .weight_decay = 0.5f});
  EXPECT_EQ(w.values(), (std::vector<double>{0.75, -1.5, 3}));
}

TEST(AdamW, RejectsShapesThatDisagreeAndStepZero) {
  const GuardedTensor x(DType::f32, {3}), y(DType::f32, {4}), h(DType::bf16, {4});
  Stream s = Stream::cpu(1);
  const Tensor t = x.tensor();
  EXPECT_THROW(adamw(s, t, t, t, y.tensor(), {}, {}), LogicError);
  EXPECT_THROW(adamw(s, t, t, t, t, h.tensor(), {}), LogicError);
  EXPECT_THROW(adamw(s, t, t, t, t, {}, {.bias_correction1 = 0}), LogicError);
}

}  // namespace
}  // namespace jamba

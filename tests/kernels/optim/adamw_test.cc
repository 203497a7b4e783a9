#include "kernels/optim/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/optim/weight_halves.h"
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

enum class Storage { float32, halves };

struct State {
  GuardedTensor weight, value, rest, m, v;
  Storage storage;

  State(std::int64_t n, Storage s)
      : weight(DType::f32, {n}, test::normal_values(n, 1, "weight")),
        value(DType::bf16, {n}),
        rest(DType::u16, {n}),
        m(DType::f32, {n}, std::vector<double>(static_cast<std::size_t>(n))),
        v(DType::f32, {n}, std::vector<double>(static_cast<std::size_t>(n))),
        storage(s) {}

  void run(int steps, int threads) {
    Stream stream = test::make_stream(threads);
    if (storage == Storage::halves) {
      split_weight(stream, value.tensor(), rest.tensor(), weight.tensor());
    }
    for (int t = 1; t <= steps; ++t) {
      const std::int64_t n = weight.tensor().numel();
      const GuardedTensor grad(DType::f32, {n}, gradient(n, t));
      const bool halves = storage == Storage::halves;
      adamw(stream, halves ? value.tensor() : weight.tensor(), halves ? rest.tensor() : Tensor(),
            m.tensor(), v.tensor(), grad.tensor(), step_number(t));
    }
    if (storage == Storage::halves) {
      join_weight(stream, weight.tensor(), value.tensor(), rest.tensor());
    }
  }
  bool guards_intact() const {
    return weight.guards_intact() && m.guards_intact() && v.guards_intact() &&
           value.guards_intact() && rest.guards_intact();
  }
};

TEST(AdamW, FollowsADoubleReferenceOverSteps) {
  constexpr int kSteps = 7;
  for (const std::int64_t n : {0, 1, 7, 8, 41, 16384 + 3}) {
    State state(n, Storage::float32);
    const std::vector<double> start = state.weight.values();
    state.run(kSteps, 2);
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

TEST(AdamW, HalvesEndWithTheBitsOfFloat32) {
  for (const std::int64_t n : {1, 7, 41, 16384 + 3}) {
    State plain(n, Storage::float32), halves(n, Storage::halves);
    plain.run(3, 1);
    halves.run(3, 3);
    EXPECT_EQ(halves.weight.values(), plain.weight.values());
    EXPECT_EQ(halves.m.values(), plain.m.values());
    EXPECT_TRUE(halves.guards_intact());
  }
}

TEST(AdamW, OnlyDecaysWhereTheGradientIsZero) {
  const GuardedTensor w(DType::f32, {3}, {1, -2, 4}), m(DType::f32, {3}, {0, 0, 0});
  const GuardedTensor v(DType::f32, {3}, {0, 0, 0}), grad(DType::f32, {3}, {0, 0, 0});
  Stream stream = test::make_stream(1);
  adamw(stream, w.tensor(), {}, m.tensor(), v.tensor(), grad.tensor(),
        {.lr = 0.5f, .weight_decay = 0.5f});
  EXPECT_EQ(w.values(), (std::vector<double>{0.75, -1.5, 3}));
}

TEST(AdamW, RejectsShapesThatDisagreeAndStepZero) {
  const GuardedTensor x(DType::f32, {3}), y(DType::f32, {4}), h(DType::bf16, {3});
  const GuardedTensor rest(DType::u16, {3}), long_rest(DType::u16, {4});
  Stream s = test::make_stream(1);
  const Tensor t = x.tensor();
  EXPECT_THROW(adamw(s, t, {}, t, t, y.tensor(), {}), LogicError);
  EXPECT_THROW(adamw(s, t, rest.tensor(), t, t, t, {}), LogicError);
  EXPECT_THROW(adamw(s, h.tensor(), {}, t, t, t, {}), LogicError);
  EXPECT_THROW(adamw(s, h.tensor(), long_rest.tensor(), t, t, t, {}), LogicError);
  EXPECT_THROW(adamw(s, t, {}, t, t, t, {.bias_correction1 = 0}), LogicError);
}

}  // namespace
}  // namespace jamba

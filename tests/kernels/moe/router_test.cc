#include "kernels/moe/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Scalar;
using test::Values;

struct Dims {
  std::int64_t tokens, experts, k;
};

/// probs, index, weight.
std::vector<Values> reference(const Values& logits, const Dims& d, bool renormalize) {
  Values probs, index, weight;
  for (std::int64_t t = 0; t < d.tokens; ++t) {
    const Scalar* row = logits.data() + t * d.experts;
    double max = row[0].real();
    for (std::int64_t e = 1; e < d.experts; ++e) max = std::max(max, row[e].real());
    Values p;
    for (std::int64_t e = 0; e < d.experts; ++e) p.push_back(std::exp(row[e] - max));
    const Scalar sum = std::accumulate(p.begin(), p.end(), Scalar(0));
    for (Scalar& x : p) x /= sum;
    std::vector<std::int64_t> order(static_cast<std::size_t>(d.experts));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](auto a, auto b) { return p[a].real() > p[b].real(); });
    Scalar chosen = 0;
    for (std::int64_t s = 0; s < d.k; ++s) chosen += p[order[s]];
    for (std::int64_t s = 0; s < d.k; ++s) {
      index.emplace_back(static_cast<double>(order[s]));
      weight.push_back(renormalize ? p[order[s]] / chosen : p[order[s]]);
    }
    probs.insert(probs.end(), p.begin(), p.end());
  }
  return {probs, index, weight};
}

/// probs get no gradient here; BalanceAndZLossReachTheLogits covers dprobs and z_scale.
OpCase router_case(const Dims& d, bool renormalize) {
  OpCase op;
  op.name = fmt::format("router [{}, {}] top {}{}", d.tokens, d.experts, d.k,
                        renormalize ? " renormalised" : "");
  op.inputs = {{.name = "logits",
                .dims = {d.tokens, d.experts},
                .values = test::normal_values(d.tokens * d.experts, 1, "logits", 2)}};
  op.outputs = {
      {.name = "probs", .dims = {d.tokens, d.experts}, .differentiable = false},
      {.name = "index", .dtype = DType::i32, .dims = {d.tokens, d.k}, .differentiable = false},
      {.name = "weight", .dims = {d.tokens, d.k}}};
  op.reference = [=](const std::vector<Values>& in) { return reference(in[0], d, renormalize); };
  op.forward = [=](Stream& s, Arena&, auto in, auto out) {
    router_forward(s, out[0], out[1], out[2], in[0], renormalize);
  };
  op.backward = [=](Stream& s, Arena&, auto in, auto out, auto dout, auto din) {
    router_backward(s, din[0], dout[2], {}, out[0], out[1], in[0], renormalize, 0);
  };
  return op;
}

TEST(Router, MatchesReferenceForwardAndBackward) {
  for (const bool renormalize : {false, true}) {
    check_op(router_case({1, 1, 1}, renormalize));
    check_op(router_case({5, 16, 2}, renormalize));
    check_op(router_case({3, 19, 4}, renormalize));
    check_op(router_case({3, 7, 7}, renormalize));  // every expert
    check_op(router_case({130, 8, 2}, renormalize));
    check_op(router_case({2, 256, 8}, renormalize));
  }
  check_op(router_case({65, 8, 1}, false));
}

/// A router's outputs for given logits, one token a row.
struct Routed {
  GuardedTensor logits, probs, index, weight;

  Routed(const std::vector<double>& values, std::int64_t experts, std::int64_t k,
         bool renormalize = false)
      : logits(DType::f32, {std::ssize(values) / experts, experts}, values),
        probs(DType::f32, {std::ssize(values) / experts, experts}),
        index(DType::i32, {std::ssize(values) / experts, k}),
        weight(DType::f32, {std::ssize(values) / experts, k}) {
    Stream stream = test::make_stream(1);
    router_forward(stream, probs.tensor(), index.tensor(), weight.tensor(), logits.tensor(),
                   renormalize);
  }
};

TEST(Router, GivesTiesToTheLowerExpert) {
  EXPECT_EQ(Routed({1, 3, 3, 1, 3}, 5, 4).index.values(), (std::vector<double>{1, 2, 4, 0}));
  EXPECT_EQ(Routed(std::vector<double>(6, 2.0), 6, 6).index.values(),
            (std::vector<double>{0, 1, 2, 3, 4, 5}));
}

TEST(Router, SurvivesLogitsOfTenThousand) {
  for (const bool renormalize : {false, true}) {
    const Routed r({-1e4, 1e4, 0, 1e4 - 1}, 4, 3, renormalize);
    EXPECT_EQ(r.index.values(), (std::vector<double>{1, 3, 0}));
    const double first = 1 / (1 + std::exp(-1.0));
    EXPECT_TRUE(std::abs(r.weight.values()[0] - first) <= 1e-6);
    EXPECT_TRUE(std::abs(r.weight.values()[1] - (1 - first)) <= 1e-6);
    EXPECT_EQ(r.weight.values()[2], 0);
  }
}

TEST(Router, GivesValidExpertsForNanLogits) {
  const Routed r({1, std::nan(""), 2, 0}, 4, 2);
  EXPECT_EQ(r.index.values(), (std::vector<double>{0, 1}));
  for (const double w : r.weight.values()) EXPECT_TRUE(std::isnan(w));
}

/// Scalar loss <dprobs, sum of probs> + <dweight, weight> + z_scale * sum lse^2, by complex step.
TEST(Router, BalanceAndZLossReachTheLogits) {
  const Dims d{.tokens = 7, .experts = 11, .k = 3};
  const double z_scale = 0.125;
  const std::vector<double> dprobs = test::normal_values(d.experts, 2, "dprobs");
  const std::vector<double> dweight = test::normal_values(d.tokens * d.k, 3, "dweight");
  for (const bool renormalize : {false, true}) {
    const Routed r(test::normal_values(d.tokens * d.experts, 1, "logits"), d.experts, d.k,
                   renormalize);
    const GuardedTensor dp(DType::f32, {d.experts}, dprobs);
    const GuardedTensor dw(DType::f32, {d.tokens, d.k}, dweight);
    const GuardedTensor dlogits(DType::f32, {d.tokens, d.experts});
    Stream stream = test::make_stream(2);
    router_backward(stream, dlogits.tensor(), dw.tensor(), dp.tensor(), r.probs.tensor(),
                    r.index.tensor(), r.logits.tensor(), renormalize, static_cast<float>(z_scale));
    const auto loss = [&](const Values& logits) {
      const std::vector<Values> out = reference(logits, d, renormalize);
      Scalar sum = 0;
      for (std::int64_t t = 0; t < d.tokens; ++t) {
        Scalar exps = 0;
        for (std::int64_t e = 0; e < d.experts; ++e) {
          sum += dprobs[e] * out[0][t * d.experts + e];
          exps += std::exp(logits[t * d.experts + e]);
        }
        for (std::int64_t s = 0; s < d.k; ++s) sum += dweight[t * d.k + s] * out[2][t * d.k + s];
        sum += z_scale * std::log(exps) * std::log(exps);
      }
      return sum;
    };
    const std::vector<double> values = r.logits.values();
    Values logits(values.begin(), values.end());
    std::vector<double> want;
    for (Scalar& x : logits) {
      x.imag(1e-30);
      want.push_back(loss(logits).imag() / 1e-30);
      x.imag(0);
    }
    EXPECT_TRUE(test::worst_error(dlogits.values(), want) <= 1e-5) << renormalize;
  }
}

TEST(Router, TheOnlyExpertOfATokenHasWeightOneAndNoGradient) {
  const Routed r(test::normal_values(30, 1, "logits"), 6, 1, true);
  EXPECT_EQ(r.weight.values(), std::vector<double>(5, 1.0));
  const GuardedTensor dweight(DType::f32, {5, 1}, test::normal_values(5, 1, "dweight"));
  const GuardedTensor dlogits(DType::f32, {5, 6});
  Stream stream = test::make_stream(1);
  router_backward(stream, dlogits.tensor(), dweight.tensor(), {}, r.probs.tensor(),
                  r.index.tensor(), r.logits.tensor(), true, 0);
  EXPECT_EQ(dlogits.values(), std::vector<double>(30, 0.0));
}

TEST(Router, AddsUpStatistics) {
  const Dims d{.tokens = 150, .experts = 5, .k = 2};
  const Routed r(test::normal_values(d.tokens * d.experts, 1, "logits"), d.experts, d.k);
  std::vector<double> probs(5, 1.0), counts(5, 10.0), z(1, 2.0);  // what was there is added to
  const std::vector<double> logits = r.logits.values(), index = r.index.values();
  for (std::int64_t t = 0; t < d.tokens; ++t) {
    double sum = 0;
    for (std::int64_t e = 0; e < d.experts; ++e) {
      probs[e] += r.probs.values()[t * d.experts + e];
      sum += std::exp(logits[t * d.experts + e]);
    }
    z[0] += std::log(sum) * std::log(sum);
    for (std::int64_t s = 0; s < d.k; ++s) {
      counts[static_cast<std::size_t>(index[t * d.k + s])] += 1;
    }
  }
  std::vector<double> first;
  for (const int threads : {1, 2, 3}) {
    const GuardedTensor prob_sum(DType::f32, {5}, std::vector<double>(5, 1.0));
    const GuardedTensor count(DType::i64, {5}, std::vector<double>(5, 10.0));
    const GuardedTensor z_sum(DType::f32, {1}, {2.0});
    Stream stream = test::make_stream(threads);
    Arena scratch(test::device());
    scratch.poison_on(stream);
    router_statistics(stream, scratch, prob_sum.tensor(), count.tensor(), z_sum.tensor(),
                      r.probs.tensor(), r.index.tensor(), r.logits.tensor());
    EXPECT_TRUE(test::worst_error(prob_sum.values(), probs) <= 1e-5);
    EXPECT_TRUE(test::worst_error(z_sum.values(), z) <= 1e-5);
    EXPECT_EQ(count.values(), counts);
    std::vector<double> bits = prob_sum.values();
    bits.push_back(z_sum.values()[0]);
    if (threads == 1) first = bits;
    EXPECT_EQ(bits, first);
  }
}

std::vector<double> jittered(std::int64_t rows, std::int64_t experts, float amount,
                             std::uint64_t seed, std::uint64_t rng_stream, std::int64_t first_row,
                             int threads = 1) {
  const GuardedTensor logits(DType::f32, {rows, experts},
                             std::vector<double>(static_cast<std::size_t>(rows * experts), 1.0));
  Stream stream = test::make_stream(threads);
  router_jitter(stream, logits.tensor(), amount, seed, rng_stream, first_row);
  EXPECT_TRUE(logits.guards_intact());
  return logits.values();
}

TEST(RouterJitter, IsUniformAroundOne) {
  const std::vector<double> noise = jittered(1000, 10, 0.25f, 1, 2, 0);
  double mean = 0, variance = 0;
  for (const double x : noise) {
    EXPECT_TRUE(x >= 0.75 && x <= 1.25);
    mean += x / 1e4;
    variance += (x - 1) * (x - 1) / 1e4;
  }
  EXPECT_TRUE(std::abs(mean - 1) <= 0.006);  // 4 standard errors
  EXPECT_TRUE(std::abs(variance / (0.25 * 0.25 / 3) - 1) <= 0.04);
}

TEST(RouterJitter, IsAFunctionOfSeedStreamAndPlace) {
  const std::vector<double> all = jittered(130, 6, 0.1f, 1, 2, 0);
  EXPECT_EQ(jittered(130, 6, 0.1f, 1, 2, 0, 3), all);
  EXPECT_EQ(jittered(30, 6, 0.1f, 1, 2, 100), std::vector<double>(all.begin() + 600, all.end()));
  EXPECT_NE(jittered(130, 6, 0.1f, 2, 2, 0), all);
  EXPECT_NE(jittered(130, 6, 0.1f, 1, 3, 0), all);
  std::vector<double> sorted = all;
  std::sort(sorted.begin(), sorted.end());
  const auto distinct = std::unique(sorted.begin(), sorted.end()) - sorted.begin();
  EXPECT_GE(distinct, 775);  // 780 draws of 24 bits: places do not share their noise
  EXPECT_EQ(jittered(3, 6, 0, 1, 2, 0), std::vector<double>(18, 1.0));
}

TEST(Router, RejectsWhatDoesNotFit) {
  EXPECT_THROW(Routed({1, 2, 3}, 3, 4), LogicError);
  const Routed r({1, 2, 3}, 3, 2);
  const GuardedTensor index(DType::i32, {1, 2}, {0, 3}), dweight(DType::f32, {1, 2}, {1, 1});
  const GuardedTensor dlogits(DType::f32, {1, 3}), short_probs(DType::f32, {2});
  Stream stream = test::make_stream(1);
  if (!test::on_cuda()) {  // nobody reads the index on the host there
    EXPECT_THROW(router_backward(stream, dlogits.tensor(), dweight.tensor(), {}, r.probs.tensor(),
                                 index.tensor(), r.logits.tensor(), false, 0),
                 LogicError);
  }
  EXPECT_THROW(router_backward(stream, dlogits.tensor(), dweight.tensor(), short_probs.tensor(),
                               r.probs.tensor(), r.index.tensor(), r.logits.tensor(), false, 0),
               LogicError);
  EXPECT_THROW(jittered(1, 2, 1.5f, 1, 2, 0), LogicError);
}

}  // namespace
}  // namespace jamba

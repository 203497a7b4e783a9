#include "kernels/moe/balance_loss.h"

#include <gtest/gtest.h>

#include "kernels/core/host_view.h"
#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::OpCase;
using test::Scalar;
using test::Values;

constexpr std::int64_t kLayers = 3, kGroups = 2, kExperts = 5, kTokens = 7;
constexpr std::int64_t kNumel = kLayers * kGroups * kExperts;

std::size_t at(std::int64_t layer, std::int64_t group, std::int64_t expert) {
  return static_cast<std::size_t>((layer * kGroups + group) * kExperts + expert);
}

std::int64_t num_products(BalancePooling pooling) {
  return pooling == BalancePooling::all_layers ? 1 : kLayers;
}

/// aux of each product and group, straight from its definition.
Values reference(const Values& prob_sum, const Values& counts, BalancePooling pooling) {
  const std::int64_t products = num_products(pooling), span = kLayers / products;
  const double rows = static_cast<double>(span * kTokens), experts = kExperts;
  Values aux;
  for (std::int64_t p = 0; p < products; ++p) {
    for (std::int64_t g = 0; g < kGroups; ++g) {
      Scalar sum = 0;
      for (std::int64_t e = 0; e < kExperts; ++e) {
        Scalar chosen = 0, probability = 0;
        for (std::int64_t l = p * span; l < (p + 1) * span; ++l) {
          chosen += counts[at(l, g, e)];
          probability += prob_sum[at(l, g, e)];
        }
        sum += (chosen / rows) * (probability / rows);
      }
      aux.push_back(experts * sum);
    }
  }
  return aux;
}

OpCase balance_loss_case(BalancePooling pooling) {
  OpCase op;
  op.name =
      pooling == BalancePooling::all_layers ? "balance_loss pooled" : "balance_loss per layer";
  op.inputs = {{.name = "prob_sum",
                .dims = {kLayers, kGroups, kExperts},
                .values = test::normal_values(kNumel, 1, "prob_sum")},
               {.name = "counts",
                .dtype = DType::i64,
                .dims = {kLayers, kGroups, kExperts},
                .values = test::integer_values(kNumel, 1, "counts", 0, 9),
                .differentiable = false}};
  const std::int64_t products = num_products(pooling);
  op.outputs = {{.name = "aux", .dims = {products, kGroups}}};
  op.reference = [pooling](const std::vector<Values>& in) {
    return std::vector<Values>{reference(in[0], in[1], pooling)};
  };
  op.forward = [pooling](Stream& s, Arena& scratch, auto in, auto out) {
    const Tensor unused = scratch.allocate(DType::f32, {kLayers, kGroups, kExperts});
    balance_loss(s, out[0], unused, in[0], in[1], kTokens, pooling, 1.0f);
  };
  op.backward = [=](Stream& s, Arena& scratch, auto in, auto, auto dout, auto din) {
    const Tensor aux = scratch.allocate(DType::f32, {products, kGroups});
    balance_loss(s, aux, din[0], in[0], in[1], kTokens, pooling, 0.5f);
    const HostView gradient(s, din[0], HostAccess::read), upstream(s, dout[0], HostAccess::read);
    for (std::int64_t i = 0; i < kNumel; ++i) {
      const std::int64_t group = i / kExperts % kGroups, layer = i / kExperts / kGroups;
      const std::int64_t product = layer * products / kLayers;
      gradient.ptr<float>()[i] *= 2.0f * upstream.ptr<float>()[product * kGroups + group];
    }
    gradient.store();
  };
  return op;
}

TEST(BalanceLoss, MatchesItsDefinitionAndDerivative) {
  check_op(balance_loss_case(BalancePooling::all_layers));
  check_op(balance_loss_case(BalancePooling::per_layer));
}

TEST(BalanceLoss, IsTopKUnderPerfectBalance) {
  const auto numel = static_cast<std::size_t>(kNumel);
  const test::GuardedTensor prob_sum(DType::f32, {kLayers, kGroups, kExperts},
                                     std::vector<double>(numel, 10.0 / 5));
  const test::GuardedTensor counts(DType::i64, {kLayers, kGroups, kExperts},
                                   std::vector<double>(numel, 4.0));
  const test::GuardedTensor dprobs(DType::f32, {kLayers, kGroups, kExperts});
  Stream stream = test::make_stream(1);
  for (const BalancePooling pooling : {BalancePooling::all_layers, BalancePooling::per_layer}) {
    const test::GuardedTensor aux(DType::f32, {num_products(pooling), kGroups});
    balance_loss(stream, aux.tensor(), dprobs.tensor(), prob_sum.tensor(), counts.tensor(), 10,
                 pooling, 1.0f);
    for (const double a : aux.values()) EXPECT_NEAR(a, 2.0, 1e-6);  // 4 of 10 tokens, 5 experts
  }
}

TEST(BalanceLoss, RejectsWhatDoesNotFit) {
  const test::GuardedTensor sums(DType::f32, {2, 1, 2}), counts(DType::i64, {2, 1, 2});
  const test::GuardedTensor one(DType::f32, {1, 1}), two(DType::f32, {2, 1});
  Stream stream = test::make_stream(1);
  const auto run = [&](const test::GuardedTensor& aux, std::int64_t tokens,
                       BalancePooling pooling) {
    balance_loss(stream, aux.tensor(), sums.tensor(), sums.tensor(), counts.tensor(), tokens,
                 pooling, 1.0f);
  };
  EXPECT_NO_THROW(run(two, 1, BalancePooling::per_layer));
  EXPECT_THROW(run(two, 0, BalancePooling::per_layer), LogicError);
  EXPECT_THROW(run(one, 1, BalancePooling::per_layer), LogicError);
  EXPECT_THROW(run(two, 1, BalancePooling::all_layers), LogicError);
}

}  // namespace
}  // namespace jamba

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/core/dtype.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/core/simd_math_test.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

template <class F>
void map(float* y, const float* x, std::int64_t n, F&& f) {
  for_lanes(n, [&](std::int64_t i, std::int64_t count)
                   HWY_ATTR { store_n(f(load_n(x + i, count)), y + i, count); });
}

void exp2_clamped_all(float* y, const float* x, std::int64_t n) {
  map(y, x, n, [](VF v) HWY_ATTR { return exp2_clamped(v); });
}
void exp_all(float* y, const float* x, std::int64_t n) {
  map(y, x, n, [](VF v) HWY_ATTR { return exp(v); });
}
void sigmoid_all(float* y, const float* x, std::int64_t n) {
  map(y, x, n, [](VF v) HWY_ATTR { return sigmoid(v); });
}
void softplus_all(float* y, const float* x, std::int64_t n) {
  map(y, x, n, [](VF v) HWY_ATTR { return softplus(v).value; });
}
void softplus_derivative_all(float* y, const float* x, std::int64_t n) {
  map(y, x, n, [](VF v) HWY_ATTR { return softplus(v).derivative; });
}
/// 2^(x * 3), so that the product needs rounding.
void exp2_product_all(float* y, const float* x, std::int64_t n) {
  map(y, x, n,
      [](VF v) HWY_ATTR { return exp2_product<Underflow::to_zero>(v, hn::Set(DF(), 3.0f)); });
}
void exp2_product_normal_all(float* y, const float* x, std::int64_t n) {
  map(y, x, n,
      [](VF v) HWY_ATTR { return exp2_product<Underflow::impossible>(v, hn::Set(DF(), 3.0f)); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba {
namespace {

HWY_EXPORT(exp2_clamped_all);
HWY_EXPORT(exp_all);
HWY_EXPORT(sigmoid_all);
HWY_EXPORT(softplus_all);
HWY_EXPORT(softplus_derivative_all);
HWY_EXPORT(exp2_product_all);
HWY_EXPORT(exp2_product_normal_all);

using Function = void (*)(float*, const float*, std::int64_t);
using Exact = std::function<double(double)>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kUnit = 0x1p-24f;

std::vector<float> evaluate(Function f, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  f(y.data(), x.data(), static_cast<std::int64_t>(x.size()));
  return y;
}
float evaluate(Function f, float x) { return evaluate(f, std::vector<float>(1, x))[0]; }

/// Evenly spaced points and, around zero, points of every magnitude down to 2^-100.
std::vector<float> points(float low, float high) {
  std::vector<float> x;
  constexpr int kSteps = 200000;
  for (int i = 0; i <= kSteps; ++i) {
    x.push_back(low + (high - low) * static_cast<float>(i) / static_cast<float>(kSteps));
  }
  float tiny = 1.0f;
  while (tiny > 0x1p-100f) {
    if (-tiny >= low) x.push_back(-tiny);
    if (tiny <= high) x.push_back(tiny);
    tiny *= 0.7f;
  }
  return x;
}

/// Largest relative error over [low, high], in units of 2^-24; infinite where y is NaN.
double worst_units(Function f, const Exact& exact, float low, float high) {
  const std::vector<float> x = points(low, high), y = evaluate(f, x);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = exact(x[i]);
    const double error = std::abs((static_cast<double>(y[i]) - want) / want) / kUnit;
    if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
  }
  return worst;
}

double exact_softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// NaNs as arithmetic makes them, and as uninitialised memory holds them.
std::vector<float> nans() {
  const float quiet = std::numeric_limits<float>::quiet_NaN();
  return {quiet, -quiet, std::bit_cast<float>(0xffffffffu), std::bit_cast<float>(0x7fc00123u)};
}

void expect_passes_nan(Function f) {
  for (const float nan : nans()) EXPECT_TRUE(std::isnan(evaluate(f, nan)));
}

TEST(Exp2Clamped, StaysWithinThreeUnits) {
  const auto f = HWY_DYNAMIC_DISPATCH(exp2_clamped_all);
  EXPECT_TRUE(worst_units(
                  f, [](double x) { return std::exp2(x); }, -126, 127) <= 3);
}

TEST(Exp2Clamped, HoldsItsValueBelowTheNormalRange) {
  const auto f = HWY_DYNAMIC_DISPATCH(exp2_clamped_all);
  for (const float x : {-126.0f, -127.0f, -1e10f, -kInfinity}) EXPECT_EQ(evaluate(f, x), 0x1p-126f);
  EXPECT_EQ(evaluate(f, 0.0f), 1.0f);
  EXPECT_EQ(evaluate(f, 127.0f), 0x1p127f);
  expect_passes_nan(f);
}

/// A scan raises a decay near 1 to large powers: what counts there is the mean error.
TEST(Exp2Clamped, HasNoBiasNearOne) {
  const auto f = HWY_DYNAMIC_DISPATCH(exp2_clamped_all);
  std::vector<float> x;
  for (int i = 0; i < 100000; ++i) x.push_back(-1e-2f * static_cast<float>(i + 1) / 100000);
  const std::vector<float> y = evaluate(f, x);
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += y[i] / std::exp2(double{x[i]}) - 1;
  EXPECT_TRUE(std::abs(sum / static_cast<double>(x.size())) / kUnit <= 0.1);
}

TEST(Exp2Product, StaysWithinThreeUnits) {
  const Exact exact = [](double x) { return std::exp2(3 * x); };
  EXPECT_TRUE(worst_units(HWY_DYNAMIC_DISPATCH(exp2_product_all), exact, -42, 0) <= 3);
}

TEST(Exp2Product, UnderflowsToZeroAndPassesNaN) {
  const auto f = HWY_DYNAMIC_DISPATCH(exp2_product_all);
  for (const float x : {-42.1f, -100.0f, -1e10f, -1e38f, -kInfinity})
    EXPECT_EQ(evaluate(f, x), 0.0f);
  EXPECT_EQ(evaluate(f, -42.0f), 0x1p-126f);
  EXPECT_EQ(evaluate(f, 0.0f), 1.0f);
  expect_passes_nan(f);
}

TEST(Exp2Product, GivesTheSameBitsWithoutTheUnderflowTest) {
  const std::vector<float> x = points(-42, 0);
  EXPECT_EQ(evaluate(HWY_DYNAMIC_DISPATCH(exp2_product_all), x),
            evaluate(HWY_DYNAMIC_DISPATCH(exp2_product_normal_all), x));
}

TEST(Exp, StaysWithinFourUnits) {
  const auto f = HWY_DYNAMIC_DISPATCH(exp_all);
  EXPECT_TRUE(worst_units(
                  f, [](double x) { return std::exp(x); }, -87.2f, 88) <= 4);
}

TEST(Exp, SaturatesAtTheEnds) {
  const auto f = HWY_DYNAMIC_DISPATCH(exp_all);
  for (const float x : {-87.4f, -1000.0f, -kInfinity}) EXPECT_EQ(evaluate(f, x), 0.0f);
  for (const float x : {89.0f, 1e30f, kInfinity}) {
    EXPECT_TRUE(evaluate(f, x) > 1.6e38f && evaluate(f, x) < kInfinity);
  }
  EXPECT_EQ(evaluate(f, 0.0f), 1.0f);
  expect_passes_nan(f);
}

TEST(Sigmoid, StaysWithinSixUnits) {
  EXPECT_TRUE(worst_units(HWY_DYNAMIC_DISPATCH(sigmoid_all), exact_sigmoid, -87, 100) <= 6);
}

TEST(Sigmoid, ReachesItsLimits) {
  const auto f = HWY_DYNAMIC_DISPATCH(sigmoid_all);
  for (const float x : {100.0f, 1e30f, kInfinity}) EXPECT_EQ(evaluate(f, x), 1.0f);
  for (const float x : {-1e4f, -kInfinity}) {
    EXPECT_TRUE(evaluate(f, x) >= 0.0f && evaluate(f, x) < 1e-38f);
  }
  expect_passes_nan(f);
}

TEST(Softplus, KeepsItsRelativeAccuracyEverywhere) {
  const auto f = HWY_DYNAMIC_DISPATCH(softplus_all);
  EXPECT_TRUE(worst_units(f, exact_softplus, -87, 100) <= 6);
}

TEST(Softplus, TendsToZeroAndToItsArgument) {
  const auto f = HWY_DYNAMIC_DISPATCH(softplus_all);
  for (const float x : {20.0f, 30.0f, 89.0f, 1e4f, 1e30f}) {
    EXPECT_TRUE(std::abs(evaluate(f, x) - x) <= 1e-6f * x);
  }
  EXPECT_EQ(evaluate(f, kInfinity), kInfinity);
  EXPECT_EQ(evaluate(f, -100.0f), 0.0f);
  EXPECT_EQ(evaluate(f, -kInfinity), 0.0f);
  expect_passes_nan(f);
}

TEST(Softplus, HasSigmoidAsItsDerivative) {
  const auto f = HWY_DYNAMIC_DISPATCH(softplus_derivative_all);
  EXPECT_TRUE(worst_units(f, exact_sigmoid, -87, 100) <= 6);
  expect_passes_nan(f);
}

}  // namespace
}  // namespace jamba
#endif  // HWY_ONCE

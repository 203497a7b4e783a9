#include "kernels/pointwise/pointwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;

constexpr DType kFloats[] = {DType::f32, DType::bf16};
// Below and above a vector, and several units of parallel work.
constexpr std::int64_t kSizes[] = {0, 1, 7, 8, 33, 16384 * 2 + 5};

/// What a tensor of this dtype holds after `value` was stored in it.
double stored(double value, DType dtype) {
  const auto single = static_cast<float>(value);
  return static_cast<double>(dtype == DType::f32 ? single : static_cast<float>(bfloat16(single)));
}

GuardedTensor normal(DType dtype, std::int64_t n, const char* name) {
  return GuardedTensor(dtype, {n}, test::normal_values(n, 5, name));
}

/// Runs y = op(y, x) for every pair of dtypes and compares each element, to the bit where bfloat16
/// or float32 rounds the exact value.
template <class Op, class Expected>
void check_update(const Op& op, const Expected& expected, bool equal_dtypes = false) {
  for (const DType y_dtype : kFloats) {
    for (const DType x_dtype : kFloats) {
      if (equal_dtypes && y_dtype != x_dtype) continue;
      for (const std::int64_t n : kSizes) {
        Stream stream = test::make_stream(2);
        const GuardedTensor y = normal(y_dtype, n, "y"), x = normal(x_dtype, n, "x");
        std::vector<double> want = y.values();
        const std::vector<double> from = x.values();
        for (std::size_t i = 0; i < want.size(); ++i) {
          want[i] = stored(expected(want[i], from[i]), y_dtype);
        }
        op(stream, y.tensor(), x.tensor());
        EXPECT_EQ(y.values(), want)
            << dtype_name(y_dtype) << " " << dtype_name(x_dtype) << " " << n;
        EXPECT_TRUE(y.guards_intact());
      }
    }
  }
}

TEST(Pointwise, CastRoundsToNearestEven) {
  check_update(cast, [](double, double x) { return x; });
}

TEST(Pointwise, AddSumsInFloat32) {
  check_update(add, [](double y, double x) { return y + x; });
}

TEST(Pointwise, AddScaledMultipliesThenAdds) {
  check_update([](Stream& s, Tensor y, Tensor x) { add_scaled(s, y, x, -0.75f); },
               [](double y, double x) { return y - 0.75 * x; }, true);
}

TEST(Pointwise, ScaleMultipliesEveryElement) {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : kSizes) {
      Stream stream = test::make_stream(2);
      const GuardedTensor x = normal(dtype, n, "x");
      std::vector<double> want = x.values();
      for (double& v : want) v = stored(v * 0.375, dtype);
      scale(stream, x.tensor(), 0.375f);
      EXPECT_EQ(x.values(), want);
      EXPECT_TRUE(x.guards_intact());
    }
  }
}

TEST(Pointwise, ZeroClearsEveryByteAndNoOther) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::i64, DType::u8}) {
    for (const std::int64_t n : {0, 1, 13, 70001}) {
      Stream stream = test::make_stream(2);
      const GuardedTensor x(dtype, {n});
      zero(stream, x.tensor());
      EXPECT_EQ(x.values(), std::vector<double>(static_cast<std::size_t>(n), 0.0));
      EXPECT_TRUE(x.guards_intact());
    }
  }
}

double sum_of_squares_of(const GuardedTensor& x, int threads) {
  Stream stream = test::make_stream(threads);
  Arena scratch(test::device());
  scratch.poison_on(stream);
  return sum_of_squares(stream, scratch, x.tensor());
}

TEST(Pointwise, SumOfSquaresIsADoubleSumForAnyThreadCount) {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : kSizes) {
      const GuardedTensor x = normal(dtype, n, "x");
      double want = 0;
      for (const double v : x.values()) want += v * v;
      const double got = sum_of_squares_of(x, 1);
      EXPECT_TRUE(std::abs(got - want) <= 1e-13 * want) << got << " " << want;
      for (const int threads : {1, 2, 3}) EXPECT_EQ(sum_of_squares_of(x, threads), got);
    }
  }
}

TEST(Pointwise, SquaresOfPartsAddUpToThoseOfTheWholeBitForBit) {
  const std::int64_t n = 70 * kSquaresBlock + 5;
  for (const DType dtype : kFloats) {
    const GuardedTensor x = normal(dtype, n, "x");
    Stream stream = test::make_stream(2);
    Arena scratch(test::device());
    for (const std::int64_t block : {1, 3, 65}) {
      ExactSum sum;
      const std::int64_t cut = block * kSquaresBlock;
      add_squares(stream, scratch, sum, x.tensor().slice(cut, n - cut));
      add_squares(stream, scratch, sum, x.tensor().slice(0, cut));
      EXPECT_EQ(sum.value(), sum_of_squares_of(x, 1)) << block;
    }
  }
}

TEST(Pointwise, SumOfSquaresKeepsSmallTermsBesideALargeOne) {
  // Each of the small blocks is half a unit in the last place of the large one.
  const std::int64_t n = 9 * kSquaresBlock;
  std::vector<double> values(n, 0.0);
  for (std::int64_t i = 0; i < n; i += kSquaresBlock) values[i] = 1;
  values[4 * kSquaresBlock] = 0.75 * 0x1p27;  // its square is a multiple of 2
  const double got = sum_of_squares_of(GuardedTensor(DType::f32, {n}, values), 1);
  EXPECT_EQ(got, 0.5625 * 0x1p54 + 8);
}

TEST(Pointwise, SumOfSquaresOfLargeFloatsIsFinite) {
  const GuardedTensor x(DType::f32, {3}, {3e38, -3e38, 1});
  const double large = static_cast<double>(3e38f);
  EXPECT_DOUBLE_EQ(sum_of_squares_of(x, 1), 2 * large * large);
}

TEST(Pointwise, SumOfSquaresShowsAnyNonFiniteElement) {
  for (const double bad :
       {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
        std::numeric_limits<double>::quiet_NaN()}) {
    for (const std::int64_t at : {0, 20000, 40000}) {
      for (const DType dtype : kFloats) {
        std::vector<double> values(40001, 0.5);
        values[static_cast<std::size_t>(at)] = bad;
        EXPECT_FALSE(std::isfinite(sum_of_squares_of(GuardedTensor(dtype, {40001}, values), 2)));
      }
    }
  }
}

TEST(Pointwise, RejectsTensorsThatDisagree) {
  const GuardedTensor x(DType::f32, {3}), y(DType::f32, {4}), h(DType::bf16, {3});
  const GuardedTensor ids(DType::i32, {3});
  Stream s = test::make_stream(1);
  EXPECT_THROW(cast(s, y.tensor(), x.tensor()), LogicError);
  EXPECT_THROW(add(s, y.tensor(), x.tensor()), LogicError);
  EXPECT_THROW(add(s, x.tensor(), ids.tensor()), LogicError);
  EXPECT_THROW(add_scaled(s, h.tensor(), x.tensor(), 1.0f), LogicError);
  EXPECT_THROW(scale(s, ids.tensor(), 1.0f), LogicError);
  EXPECT_THROW(zero(s, Tensor()), LogicError);
}

}  // namespace
}  // namespace jamba

#include "kernels/core/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/core/rng.h"
#include "kernels/core/stream.h"

namespace jamba {
namespace {

using Limits = std::numeric_limits<double>;
constexpr double kInfinity = Limits::infinity();

/// As bits: == takes denormals for zero where the processor flushes them, and -0 for 0.
std::uint64_t bits(double x) { return std::bit_cast<std::uint64_t>(x); }

ExactSum sum_of(const std::vector<double>& terms) {
  ExactSum sum;
  for (const double term : terms) sum.add(term);
  return sum;
}

std::uint64_t value_of(const std::vector<double>& terms) { return bits(sum_of(terms).value()); }

void join(ExactSum& sum, ExactSum other) {
  const auto to = sum.words(), from = other.words();
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

/// Numbers of either sign with any exponent in [low, high].
std::vector<double> random_terms(std::int64_t n, std::uint64_t seed, int low, int high) {
  const CounterRng rng(seed, "terms");
  std::vector<double> terms;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::uint64_t>(2 * i);
    const auto exponent = static_cast<int>(rng.below(at + 1, high - low + 1)) + low;
    const double fraction = 1 + rng.uniform(at);
    terms.push_back(std::ldexp(rng.bits(at) % 2 != 0 ? fraction : -fraction, exponent));
  }
  return terms;
}

TEST(ExactSum, IsTheNearestDoubleOfTheExactSum) {
  __extension__ using Integer = __int128;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::vector<double> terms = random_terms(1 + static_cast<int>(seed), seed, 0, 60);
    Integer want = 0;  // in units of 2^-52
    for (const double term : terms) {
      int exponent = 0;
      const double fraction = std::frexp(term, &exponent);
      want += Integer{std::llround(std::ldexp(fraction, 53))} * (Integer{1} << (exponent - 1));
    }
    EXPECT_EQ(value_of(terms), bits(std::ldexp(static_cast<double>(want), -52))) << seed;
  }
}

TEST(ExactSum, DependsNeitherOnTheOrderNorOnTheSplit) {
  std::vector<double> terms = random_terms(1000, 1, -1021, 1000);
  ExactSum whole = sum_of(terms);
  const std::vector<std::int64_t> words(whole.words().begin(), whole.words().end());
  for (const std::size_t ranks : {2, 3, 7}) {
    std::ranges::rotate(terms, terms.begin() + 37);
    std::reverse(terms.begin(), terms.begin() + 500);
    std::vector<ExactSum> parts(ranks);
    for (std::size_t i = 0; i < terms.size(); ++i) parts[i * i % ranks].add(terms[i]);
    ExactSum joined;
    for (const ExactSum& part : parts) join(joined, part);
    EXPECT_EQ(bits(joined.value()), bits(whole.value())) << ranks;
    EXPECT_TRUE(std::ranges::equal(joined.words(), words)) << ranks;
    EXPECT_TRUE(std::ranges::equal(sum_of(terms).words(), words)) << ranks;
  }
}

TEST(ExactSum, HasWordsThatOnlyTheSumDecides) {
  ExactSum two_terms = sum_of({0x1p40, -1}), one_term = sum_of({0x1p40 - 1});
  EXPECT_TRUE(std::ranges::equal(two_terms.words(), one_term.words()));
}

TEST(ExactSum, CancelsWithoutATrace) {
  std::vector<double> terms = random_terms(500, 2, -1021, 1000);
  const std::size_t n = terms.size();
  for (std::size_t i = 0; i < n; ++i) terms.push_back(-terms[(i * 7) % n]);
  EXPECT_EQ(value_of(terms), bits(0.0));
  terms.push_back(-3e-300);
  EXPECT_EQ(value_of(terms), bits(-3e-300));
  EXPECT_EQ(value_of({1e300, 1, -1e300}), bits(1.0));
  EXPECT_EQ(value_of({-1e300, -1, 1e300, 0.25}), bits(-0.75));
}

TEST(ExactSum, RoundsTiesToEvenAndSeesTheLastBit) {
  const double tiny = Limits::denorm_min();
  EXPECT_EQ(value_of({1, 0x1p-53}), bits(1.0));
  EXPECT_EQ(value_of({1, 0x1p-53, tiny}), bits(1 + 0x1p-52));
  EXPECT_EQ(value_of({1, 0x1p-53, -tiny}), bits(1.0));
  EXPECT_EQ(value_of({1 + 0x1p-52, 0x1p-53}), bits(1 + 0x1p-51));
  EXPECT_EQ(value_of({-1, -0x1p-53, -tiny}), bits(-1 - 0x1p-52));
  EXPECT_EQ(value_of({2 - 0x1p-52, 0x1p-53}), bits(2.0));  // carries out of the fraction
}

TEST(ExactSum, HoldsDenormalsWhereTheProcessorFlushesThem) {
  const Stream flushes = Stream::cpu(1);
  const double tiny = Limits::denorm_min();
  EXPECT_EQ(value_of({}), bits(0.0));
  EXPECT_EQ(value_of({-0.0, -0.0}), bits(0.0));
  EXPECT_EQ(value_of({tiny, tiny, tiny}), 3u);
  EXPECT_EQ(value_of({Limits::min(), std::bit_cast<double>(bits(-tiny))}), bits(Limits::min()) - 1);
  const double half = std::bit_cast<double>(bits(Limits::min()) / 2);
  EXPECT_EQ(value_of({half, half}), bits(Limits::min()));
  EXPECT_EQ(value_of({1, tiny, -1}), 1u);
}

TEST(ExactSum, OverflowsOnlyInItsValue) {
  const double most = Limits::max();
  EXPECT_EQ(value_of({most, most, -most}), bits(most));
  EXPECT_EQ(value_of({most, most}), bits(kInfinity));
  EXPECT_EQ(value_of({-most, -most}), bits(-kInfinity));
  EXPECT_EQ(value_of({most, 0x1p969}), bits(most));
  EXPECT_EQ(value_of({most, 0x1p970}), bits(kInfinity));  // the tie
}

TEST(ExactSum, KeepsNonFiniteTermsThroughJoins) {
  const double nan = Limits::quiet_NaN();
  const auto joined = [](const std::vector<double>& a, const std::vector<double>& b) {
    ExactSum sum = sum_of(a);
    join(sum, sum_of(b));
    return sum.value();
  };
  EXPECT_EQ(joined({1, kInfinity}, {-5}), kInfinity);
  EXPECT_EQ(joined({1}, {-kInfinity, 2, -kInfinity}), -kInfinity);
  EXPECT_TRUE(std::isnan(joined({kInfinity}, {-kInfinity})));
  EXPECT_TRUE(std::isnan(joined({nan}, {1})));
  EXPECT_TRUE(std::isnan(joined({1}, {-nan})));
  EXPECT_TRUE(std::isnan(joined({kInfinity}, {nan})));
}

TEST(ExactSum, LeavesRoomForTheWordsOfAMillionRanks) {
  const double term = -std::ldexp(2 - 0x1p-52, 500);
  ExactSum one = sum_of({term, 1}), all;
  std::ranges::transform(one.words(), all.words().begin(),
                         [](std::int64_t word) { return word * (std::int64_t{1} << 20); });
  EXPECT_EQ(bits(all.value()), bits(std::ldexp(term, 20)));
  all.add(std::ldexp(-term, 20));
  EXPECT_EQ(bits(all.value()), bits(0x1p20));
}

TEST(ExactSum, ResetsToZero) {
  ExactSum sum = sum_of({1, kInfinity});
  sum.reset();
  EXPECT_EQ(bits(sum.value()), bits(0.0));
  sum.add(2);
  EXPECT_EQ(sum.value(), 2);
}

}  // namespace
}  // namespace jamba

#include "data/permutation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

std::vector<std::int64_t> elements(const Permutation& permutation, std::int64_t size) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) all[static_cast<std::size_t>(i)] = permutation(i);
  return all;
}

TEST(Permutation, HoldsEveryElementOnce) {
  for (const std::int64_t size : {1, 2, 3, 15, 16, 17, 255, 256, 257, 1000, 4097, 100000}) {
    for (const std::uint64_t seed : {1u, 2u, 77u}) {
      std::vector<std::int64_t> all = elements(Permutation(seed, 5, size), size);
      std::sort(all.begin(), all.end());
      std::vector<std::int64_t> want(static_cast<std::size_t>(size));
      std::iota(want.begin(), want.end(), 0);
      EXPECT_EQ(all, want) << size;
    }
  }
}

TEST(Permutation, DependsOnSeedAndStream) {
  const auto base = elements(Permutation(1, 1, 500), 500);
  EXPECT_EQ(base, elements(Permutation(1, 1, 500), 500));
  EXPECT_NE(base, elements(Permutation(2, 1, 500), 500));
  EXPECT_NE(base, elements(Permutation(1, 2, 500), 500));
}

TEST(Permutation, ReachesSizesBeyond32Bits) {
  const std::int64_t size = (std::int64_t{1} << 40) + 12345;
  const Permutation permutation(3, 3, size);
  for (std::int64_t i = 0; i < 1000; ++i) {
    const std::int64_t element = permutation(size - 1 - i);
    EXPECT_TRUE(element >= 0 && element < size);
  }
}

/// Over many seeds, each place of a small permutation holds each element equally often.
TEST(Permutation, IsFair) {
  constexpr std::int64_t kSize = 7, kRounds = 7000;
  std::vector<std::int64_t> counts(kSize * kSize);
  for (std::uint64_t seed = 0; seed < kRounds; ++seed) {
    const Permutation permutation(seed, 9, kSize);
    for (std::int64_t i = 0; i < kSize; ++i) {
      ++counts[static_cast<std::size_t>(i * kSize + permutation(i))];
    }
  }
  for (const std::int64_t count : counts) {
    // 1000 expected, standard deviation 29
    EXPECT_TRUE(std::abs(static_cast<double>(count) - 1000.0) < 150) << count;
  }
}

TEST(Permutation, RefusesIndicesOutside) {
  const Permutation permutation(1, 1, 10);
  EXPECT_THROW(permutation(10), LogicError);
  EXPECT_THROW(permutation(-1), LogicError);
  EXPECT_THROW(Permutation(1, 1, 0), LogicError);
}

}  // namespace
}  // namespace jamba

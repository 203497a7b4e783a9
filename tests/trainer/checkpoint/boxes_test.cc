#include "trainer/checkpoint/boxes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace jamba::test {
namespace {

using ::testing::HasSubstr;
using Shape = std::vector<std::int64_t>;
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

TEST(Boxes, LieInShapesWithoutOverflow) {
  EXPECT_TRUE(lies_in({{0, 3}, {2, 4}}, {2, 7}));
  EXPECT_TRUE(lies_in({{2}, {0}}, {2}));
  EXPECT_FALSE(lies_in({{0, 4}, {2, 4}}, {2, 7}));
  EXPECT_FALSE(lies_in({{-1}, {1}}, {2}));
  EXPECT_FALSE(lies_in({{0}, {-1}}, {2}));
  EXPECT_FALSE(lies_in({{kMax}, {kMax}}, {2}));
  EXPECT_FALSE(lies_in({{1}, {kMax}}, {2}));
  EXPECT_FALSE(lies_in({{0}, {1}}, {2, 2}));
}

/// Every element of the box, numbered by its place in the whole tensor.
std::vector<std::int64_t> numbered(const Box& box, const Shape& shape) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(box.numel()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::int64_t rest = static_cast<std::int64_t>(i), stride = 1;
    for (std::size_t d = shape.size(); d-- > 0;) {
      out[i] += (box.offset[d] + rest % box.extents[d]) * stride;
      rest /= box.extents[d];
      stride *= shape[d];
    }
  }
  return out;
}

TEST(Boxes, CopyWhatTheyShare) {
  std::mt19937_64 random(11);
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  int copies = 0;
  for (int round = 0; round < 3000; ++round) {
    Shape shape(1 + random() % 4);
    for (auto& d : shape) d = 1 + below(6);
    const auto random_box = [&] {
      Box box{shape, shape};
      for (std::size_t d = 0; d < shape.size(); ++d) {
        const bool whole = random() % 2 == 0;  // often, so that runs join
        box.offset[d] = whole ? 0 : below(shape[d]);
        box.extents[d] = whole ? shape[d] : 1 + below(shape[d] - box.offset[d]);
      }
      return box;
    };
    const Box from = random_box(), to = random_box();
    const auto source = numbered(from, shape), want = numbered(to, shape);
    std::vector<std::int64_t> got(want.size(), -1);
    const auto common = intersect(from, to);
    if (common) copy_part(*common, 8, from, source.data(), to, got.data());
    for (std::size_t i = 0; i < want.size(); ++i) {
      const bool shared = std::find(source.begin(), source.end(), want[i]) != source.end();
      ASSERT_EQ(got[i], shared ? want[i] : -1) << from.describe() << " to " << to.describe();
    }
    if (common) ++copies;
  }
  EXPECT_GT(copies, 1000);
}

TEST(Boxes, PartitionsAreExact) {
  const Shape shape = {4, 6};
  EXPECT_FALSE(partition_fault({{{0, 0}, {4, 6}}}, shape));
  EXPECT_FALSE(partition_fault({{{2, 0}, {2, 6}}, {{0, 0}, {2, 3}}, {{0, 3}, {2, 3}}}, shape));
  EXPECT_THAT(*partition_fault({{{0, 0}, {2, 6}}, {{2, 0}, {2, 5}}}, shape), HasSubstr("22 of 24"));
  EXPECT_THAT(*partition_fault({{{0, 0}, {3, 6}}, {{2, 0}, {2, 6}}}, shape), HasSubstr("overlap"));
  // The right number of elements, one of them twice.
  EXPECT_THAT(*partition_fault({{{0, 0}, {3, 6}}, {{2, 0}, {1, 6}}}, shape), HasSubstr("overlap"));
  EXPECT_THAT(*partition_fault({{{0, 0}, {4, 3}}, {{1, 2}, {3, 4}}}, shape), HasSubstr("overlap"));
  EXPECT_FALSE(partition_fault({}, {0, 3}));
  EXPECT_TRUE(partition_fault({}, shape));
}

}  // namespace
}  // namespace jamba::test

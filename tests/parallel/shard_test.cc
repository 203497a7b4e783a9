#include "parallel/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <span>
#include <vector>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Shape = std::vector<std::int64_t>;

struct Stretch {
  std::int64_t local;
  std::int64_t global;
  std::int64_t count;
  friend bool operator==(const Stretch&, const Stretch&) = default;
};

std::vector<Stretch> runs_of(const Shape& shape, const TensorShard& shard) {
  std::vector<Stretch> runs;
  for_each_run(shape, shard, [&](std::int64_t local, std::int64_t global, std::int64_t count) {
    runs.push_back({local, global, count});
  });
  return runs;
}

/// The global index of every element of the shard, in local order, by one loop over all indices of
/// the logical tensor.
std::vector<std::int64_t> slow_indices(const Shape& shape, const TensorShard& shard) {
  std::int64_t numel = 1;
  for (const std::int64_t size : shape) numel *= size;
  std::vector<std::int64_t> found;
  for (std::int64_t global = 0; global < numel; ++global) {
    bool inside = true;
    std::int64_t rest = global;
    for (std::size_t d = shape.size(); d-- > 0;) {
      const std::int64_t index = rest % shape[d] - shard.offset[d];
      inside = inside && 0 <= index && index < shard.extents[d];
      rest /= shape[d];
    }
    if (inside) found.push_back(global);
  }
  return found;
}

/// Shapes of up to four dims, and a box in them.
class RandomShards {
 public:
  Shape shape() {
    Shape shape(static_cast<std::size_t>(draw(0, 4)));
    for (std::int64_t& size : shape) size = draw(1, 5);
    return shape;
  }
  TensorShard shard(const Shape& shape) {
    TensorShard shard;
    for (const std::int64_t size : shape) {
      const bool whole = draw(0, 1) == 0;
      shard.extents.push_back(whole ? size : draw(1, size));
      shard.offset.push_back(draw(0, size - shard.extents.back()));
    }
    return shard;
  }
  std::int64_t draw(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }

 private:
  std::mt19937 random_{7};
};

TEST(Cut, SharesOfUnitsCoverTheDimOnce) {
  for (int parts = 1; parts <= 9; ++parts) {
    for (std::int64_t units = parts; units <= 20; ++units) {
      const Shape shape = {3, units * 4, 2};
      std::int64_t next = 0;
      for (int i = 0; i < parts; ++i) {
        const TensorShard shard = cut(shape, 1, 4, parts, i);
        EXPECT_THAT(shard.offset, ElementsAre(0, next, 0));
        EXPECT_EQ(shard.offset[1], units * i / parts * 4);
        EXPECT_EQ(shard.extents[1] % 4, 0);
        EXPECT_GT(shard.extents[1], 0);
        EXPECT_EQ(shard.extents[0] * shard.extents[2], 6);
        EXPECT_EQ(shard.copies, 1);
        EXPECT_EQ(shard.copy, 0);
        next += shard.extents[1];
      }
      EXPECT_EQ(next, units * 4);
    }
  }
}

TEST(Cut, FewerUnitsThanPartsMakesNumberedCopies) {
  for (int parts = 2; parts <= 12; ++parts) {
    for (int units = 1; units < parts; ++units) {
      std::vector<TensorShard> shards;
      for (int i = 0; i < parts; ++i) shards.push_back(cut(Shape{units * 4}, 0, 4, parts, i));
      for (int i = 0; i < parts; ++i) {
        EXPECT_THAT(shards[i].offset, ElementsAre(i * units / parts * 4));
        EXPECT_THAT(shards[i].extents, ElementsAre(4));
        const auto same = [&](const TensorShard& s) { return s.offset == shards[i].offset; };
        EXPECT_EQ(shards[i].copies, std::count_if(shards.begin(), shards.end(), same));
        EXPECT_EQ(shards[i].copy, std::count_if(shards.begin(), shards.begin() + i, same));
      }
    }
  }
}

TEST(Cut, NoDimIsACopyOfTheWhole) {
  const TensorShard shard = cut(Shape{3, 5}, -1, 1, 4, 2);
  EXPECT_EQ(shard, (TensorShard{{0, 0}, {3, 5}, 4, 2}));
}

TEST(Cut, RefusesWhatHasNoMeaning) {
  const Shape sizes = {6, 6};
  const auto shape = std::span(sizes).first(1);
  EXPECT_THROW(cut(shape, 0, 4, 1, 0), LogicError);  // no multiple of the unit
  EXPECT_THROW(cut(shape, 0, 0, 1, 0), LogicError);
  EXPECT_THROW(cut(shape, 0, -3, 1, 0), LogicError);
  EXPECT_THROW(cut(Shape{0}, 0, 1, 1, 0), LogicError);
  EXPECT_THROW(cut(shape, 1, 1, 1, 0), LogicError);  // no such dim
  EXPECT_THROW(cut(shape, 0, 1, 2, 2), LogicError);  // no such share
  EXPECT_THROW(cut(shape, 0, 1, 2, -1), LogicError);
}

TEST(ForEachRun, MergesWholeTrailingDims) {
  EXPECT_THAT(runs_of({4, 6}, {{1, 0}, {2, 6}}), ElementsAre(Stretch{0, 6, 12}));
  EXPECT_THAT(runs_of({4, 6}, {{1, 2}, {2, 3}}), ElementsAre(Stretch{0, 8, 3}, Stretch{3, 14, 3}));
  EXPECT_THAT(runs_of({2, 4, 6}, {{0, 1, 0}, {2, 2, 6}}),
              ElementsAre(Stretch{0, 6, 12}, Stretch{12, 30, 12}));
  EXPECT_THAT(runs_of({}, {}), ElementsAre(Stretch{0, 0, 1}));
  EXPECT_THAT(runs_of({4, 6}, {{1, 2}, {0, 3}}), IsEmpty());
}

TEST(ForEachRun, EqualsTheSlowLoopInLongestRuns) {
  RandomShards random;
  for (int i = 0; i < 2000; ++i) {
    const Shape shape = random.shape();
    const TensorShard shard = random.shard(shape);
    std::vector<std::int64_t> indices;
    std::int64_t end_of_last = -1;
    for (const Stretch& run : runs_of(shape, shard)) {
      EXPECT_EQ(run.local, static_cast<std::int64_t>(indices.size()));
      EXPECT_NE(run.global, end_of_last);  // or the two were one run
      for (std::int64_t k = 0; k < run.count; ++k) indices.push_back(run.global + k);
      end_of_last = run.global + run.count;
    }
    EXPECT_EQ(indices, slow_indices(shape, shard));
  }
}

TEST(ForEachRun, RefusesAShardOutsideTheShape) {
  EXPECT_THROW(runs_of({4, 6}, {{0, 1}, {4, 6}}), LogicError);
  EXPECT_THROW(runs_of({4, 6}, {{-1, 0}, {4, 6}}), LogicError);
  EXPECT_THROW(runs_of({4, 6}, {{0}, {4}}), LogicError);
}

TEST(BoxesOfRange, OfAMatrixAreRestOfARowRowsStartOfARow) {
  const TensorShard whole{{10, 20}, {4, 6}, 3, 1};
  EXPECT_THAT(boxes_of_range(whole, 4, 20),
              ElementsAre(TensorShard{{10, 24}, {1, 2}, 3, 1}, TensorShard{{11, 20}, {2, 6}, 3, 1},
                          TensorShard{{13, 20}, {1, 2}, 3, 1}));
  EXPECT_THAT(boxes_of_range(whole, 0, 24), ElementsAre(whole));
  EXPECT_THAT(boxes_of_range(whole, 7, 7), IsEmpty());
  EXPECT_THAT(boxes_of_range({}, 0, 1), ElementsAre(TensorShard{}));
}

/// Whether the elements `begin` to `end` of an array are all of a box of it.
bool is_box(const Shape& extents, std::int64_t begin, std::int64_t end) {
  Shape low(extents.size(), 1 << 20);
  Shape high(extents.size(), -1);
  for (std::int64_t i = begin; i < end; ++i) {
    std::int64_t rest = i;
    for (std::size_t d = extents.size(); d-- > 0;) {
      low[d] = std::min(low[d], rest % extents[d]);
      high[d] = std::max(high[d], rest % extents[d]);
      rest /= extents[d];
    }
  }
  std::int64_t volume = 1;
  for (std::size_t d = 0; d < extents.size(); ++d) volume *= high[d] - low[d] + 1;
  return volume == end - begin;
}

/// The smallest number of boxes, over all ways to cut the range.
std::int64_t fewest_boxes(const Shape& extents, std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> fewest(static_cast<std::size_t>(end - begin) + 1, 1 << 20);
  fewest[0] = 0;
  for (std::int64_t to = 1; to <= end - begin; ++to) {
    for (std::int64_t from = 0; from < to; ++from) {
      if (fewest[from] + 1 < fewest[to] && is_box(extents, begin + from, begin + to)) {
        fewest[to] = fewest[from] + 1;
      }
    }
  }
  return fewest.back();
}

TEST(BoxesOfRange, CoverTheRangeInOrderWithAsFewAsPossible) {
  RandomShards random;
  for (int i = 0; i < 300; ++i) {
    const Shape shape = random.shape();
    const TensorShard whole = random.shard(shape);
    const std::vector<std::int64_t> indices = slow_indices(shape, whole);
    const std::int64_t end = random.draw(0, static_cast<std::int64_t>(indices.size()));
    const std::int64_t begin = random.draw(std::max<std::int64_t>(0, end - 60), end);

    const std::vector<TensorShard> boxes = boxes_of_range(whole, begin, end);
    std::vector<std::int64_t> covered;
    for (const TensorShard& box : boxes) {
      // Global indices ascend within a box, so equal order means contiguous in local memory.
      const std::vector<std::int64_t> part = slow_indices(shape, box);
      covered.insert(covered.end(), part.begin(), part.end());
    }
    EXPECT_EQ(covered, std::vector<std::int64_t>(indices.begin() + begin, indices.begin() + end));
    EXPECT_EQ(static_cast<std::int64_t>(boxes.size()), fewest_boxes(whole.extents, begin, end));
  }
}

TEST(BoxesOfRange, RefusesARangeOutside) {
  const TensorShard whole{{0}, {4}};
  EXPECT_THROW(boxes_of_range(whole, -1, 2), LogicError);
  EXPECT_THROW(boxes_of_range(whole, 3, 2), LogicError);
  EXPECT_THROW(boxes_of_range(whole, 0, 5), LogicError);
}

}  // namespace
}  // namespace jamba

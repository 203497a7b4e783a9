#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/errors.h"
#include "parallel/comm/thread_group.h"
#include "tests/parallel/collective_cases.h"
#include "tests/parallel/zero_units.h"

namespace jamba {
namespace {

using test::kStages;
using test::some_units;

struct Sums {
  ZeroStage stage;
  Accumulation accumulation;
  std::int64_t num_micro;
  int ranks;

  std::string describe() const {
    return fmt::format("stage {}, {}, {} microbatches, {} ranks", static_cast<int>(stage),
                       accumulation == Accumulation::tree ? "tree" : "sequential", num_micro,
                       ranks);
  }
};

/// Of microbatch `number` of all ranks together.
float gradient_of(std::int64_t number, int unit, std::int64_t i, int step) {
  return test::rank_value(static_cast<int>(number), i + 1000 * unit + 77 * step);
}

void backward(ZeroStore& store, Communicator& group, const Sums& c, std::int64_t micro, int step) {
  for (int u = store.num_units() - 1; u >= 0; --u) {
    const Tensor all = store.begin_gradient(u);
    ASSERT_EQ(all.numel(), store.size(u));
    const bool afresh = store.starts_afresh(u, micro);
    for (std::int64_t i = 0; i < all.numel(); ++i) {
      const float g = gradient_of(micro * c.ranks + group.rank(), u, i, step);
      float& sum = all.ptr<float>()[i];
      sum = afresh ? g : sum + g;
    }
    EXPECT_EQ(store.full_gradient(u).raw(), all.raw());
    store.end_gradient(u, micro);
  }
}

void expect_sums(const ZeroStore& store, const Sums& c, int step) {
  for (int u = 0; u < store.num_units(); ++u) {
    const ZeroStore::Range owned = store.owned(u);
    const Tensor got = store.owned_gradient(u);
    ASSERT_EQ(got.numel(), owned.count);
    std::int64_t num_wrong = 0;
    for (std::int64_t i = 0; i < owned.count; ++i) {
      const int all = c.ranks * static_cast<int>(c.num_micro);
      const auto value = [&](int n) { return gradient_of(n, u, owned.begin + i, step); };
      const float pairwise = test::tree_sum(0, all, value), sum = got.ptr<float>()[i];
      float magnitude = 0;
      for (int n = 0; n < all; ++n) magnitude += std::abs(value(n));
      const bool exact = c.accumulation == Accumulation::tree;
      const float tolerance = exact ? 0 : static_cast<float>(all) * 2e-7f * magnitude;
      if (!(std::abs(sum - pairwise) <= tolerance)) ++num_wrong;
    }
    EXPECT_EQ(num_wrong, 0) << "unit " << u << ", step " << step;
  }
}

void check_sums(const Sums& c) {
  SCOPED_TRACE(c.describe());
  run_ranks(c.ranks, [&](Communicator& group) {
    Stream stream = Stream::cpu(1);
    std::vector<UnitSpec> specs = some_units(group);
    specs[3].keeps_gradient = true;
    ZeroStore store(stream, specs,
                    {.stage = c.stage, .accumulation = c.accumulation, .num_micro = c.num_micro});
    for (int step = 0; step < 2; ++step) {
      for (std::int64_t micro = 0; micro < c.num_micro; ++micro) {
        backward(store, group, c, micro, step);
      }
      store.finish_gradients();
      expect_sums(store, c, step);
    }
  });
}

/// The tree's order is that of microbatch i of rank r being number i * ranks + r, in all of them:
/// so its bits are the same for any number of ranks and in every stage.
TEST(ZeroStore, SumsGradientsInEveryStage) {
  for (const ZeroStage stage : kStages) {
    for (const std::int64_t num_micro : {1, 2, 4, 8}) {
      for (const int ranks : {1, 2, 4}) {
        check_sums({stage, Accumulation::sequential, num_micro, ranks});
        check_sums({stage, Accumulation::tree, num_micro, ranks});
      }
    }
    check_sums({stage, Accumulation::sequential, 3, 3});
  }
}

/// What is on its way holds NaN (run_ranks).
TEST(ZeroStore, HandsOutMemoryOnceTheSumsInItHaveArrived) {
  run_ranks(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    const std::vector<UnitSpec> specs(3,
                                      {.elements = 2 * kUnitBlock, .group = &group, .deep = false});
    ZeroStore store(stream, specs, {.stage = ZeroStage::gradients, .num_micro = 2});
    for (const std::int64_t micro : {0, 1}) {
      for (const int unit : {2, 1, 0}) {
        const Tensor all = store.begin_gradient(unit);
        for (std::int64_t i = 0; i < all.numel(); ++i) {
          ASSERT_FALSE(std::isnan(all.ptr<float>()[i])) << "unit " << unit << ", " << micro;
          all.ptr<float>()[i] = 1;
        }
        store.end_gradient(unit, micro);
      }
    }
    store.finish_gradients();
    EXPECT_EQ(store.owned_gradient(0).ptr<float>()[0], 4);
  });
}

TEST(ZeroStore, RefusesATreeOverThree) {
  const auto group = make_single_rank();
  Stream stream = Stream::cpu(1);
  EXPECT_THROW(
      ZeroStore(stream, some_units(*group), {.accumulation = Accumulation::tree, .num_micro = 3}),
      LogicError);
}

TEST(ZeroStore, RefusesMoreGradientsThanAPoolHasRoomFor) {
  run_ranks(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    ZeroStore store(stream, some_units(group, false), {.stage = ZeroStage::gradients});
    store.begin_gradient(0);
    EXPECT_THROW(store.begin_gradient(1), LogicError);
  });
}

}  // namespace
}  // namespace jamba

#include <gtest/gtest.h>

#include <functional>

#include "kernels/core/errors.h"
#include "parallel/comm/thread_group.h"
#include "tests/parallel/zero_units.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::kStages;
using test::some_units;

// --- Shares
TEST(ZeroStore, SharesTileAUnitInWholeBlocks) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    for (const ZeroStage stage : kStages) {
      run_ranks(ranks, [&](Communicator& group) {
        Stream stream = Stream::cpu(1);
        const std::vector<UnitSpec> specs = some_units(group);
        const ZeroStore store(stream, specs, {.stage = stage});
        for (int u = 0; u < store.num_units(); ++u) {
          const std::int64_t elements = specs[static_cast<std::size_t>(u)].elements;
          const ZeroStore::Range share = store.share(u), owned = store.owned(u);
          EXPECT_EQ(share.count % kUnitBlock, 0);
          EXPECT_EQ(share.begin, group.rank() * share.count);
          EXPECT_EQ(store.size(u), ranks * share.count);
          EXPECT_GE(store.size(u), elements);
          EXPECT_LT(store.size(u), elements + ranks * kUnitBlock);
          const bool all = ranks == 1 || stage == ZeroStage::none;
          EXPECT_EQ(owned.begin, all ? 0 : share.begin);
          EXPECT_EQ(owned.end(), all ? store.size(u) : share.end());
        }
      });
    }
  }
}

// --- Values
/// A whole number that bfloat16 holds.
float value_of(int version, int unit, std::int64_t i) {
  return static_cast<float>((i / 7 + i + 11 * unit + 101 * version) % 251);
}

void set_values(ZeroStore& store, int version) {
  for (int u = 0; u < store.num_units(); ++u) {
    std::vector<double> values;
    const ZeroStore::Range owned = store.owned(u);
    for (std::int64_t i = owned.begin; i < owned.end(); ++i) {
      values.push_back(value_of(version, u, i));
    }
    test::from_doubles(store.owned_value(u), values);
    store.publish(u);
  }
}

void expect_values(const ZeroStore& store, int version, int unit) {
  std::vector<double> want;
  for (std::int64_t i = 0; i < store.size(unit); ++i) want.push_back(value_of(version, unit, i));
  EXPECT_EQ(test::to_doubles(store.value(unit)), want) << "unit " << unit;
}

/// One unit after the other, as layers use them.
void pass(ZeroStore& store, const std::vector<int>& order, int version) {
  for (std::size_t i = 0; i < order.size(); ++i) {
    store.fetch(order[i]);
    if (i + 1 < order.size()) store.prefetch(order[i + 1]);
    expect_values(store, version, order[i]);
    store.release(order[i]);
  }
}

TEST(ZeroStore, ValuesArriveInEveryStageAndNoneIsStale) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const ZeroStage stage : kStages) {
      for (const bool deep : {false, true}) {
        SCOPED_TRACE(
            fmt::format("{} ranks, stage {}, deep {}", ranks, static_cast<int>(stage), deep));
        run_ranks(ranks, [&](Communicator& group) {
          Stream stream = Stream::cpu(1);
          ZeroStore store(stream, some_units(group, deep), {.stage = stage});
          for (int version = 0; version < 3; ++version) {
            set_values(store, version);
            pass(store, {0, 1, 2, 3, 4}, version);
            pass(store, {4, 3, 2, 1, 0}, version);
          }
          store.prefetch(2);  // on its way when its values change
          set_values(store, 3);
          pass(store, {2, 1}, 3);
        });
      }
    }
  }
}

TEST(ZeroStore, PublishesTwiceWithoutAFetchBetween) {
  for (const ZeroStage stage : kStages) {
    run_ranks(2, [&](Communicator& group) {
      Stream stream = Stream::cpu(1);
      ZeroStore store(stream, some_units(group), {.stage = stage});
      set_values(store, 1);
      for (int u = 0; u < store.num_units(); ++u) store.publish(u);
      pass(store, {0, 1, 2, 3, 4}, 1);
    });
  }
}

TEST(ZeroStore, HasTheRestsOfWhatItUpdates) {
  run_ranks(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    for (const ZeroStage stage : kStages) {
      const ZeroStore store(stream, some_units(group), {.stage = stage});
      EXPECT_TRUE(store.owned_rest(0).absent());
      EXPECT_EQ(store.owned_rest(1).dtype(), DType::u16);
      EXPECT_EQ(store.owned_rest(1).numel(), store.owned(1).count);
    }
  });
}

/// Gathers that a body starts, of units of equal size.
std::int64_t num_gathers(bool deep, const std::function<void(ZeroStore&)>& body) {
  std::int64_t count = 0;
  run_ranks(2, [&](Communicator& group) {
    Stream stream = Stream::cpu(1);
    const UnitSpec spec{.elements = 2 * kUnitBlock, .group = &group, .deep = deep};
    ZeroStore store(stream, {4, spec}, {.stage = ZeroStage::parameters});
    set_values(store, 0);
    EXPECT_EQ(group.bytes_sent(), 0);
    body(store);
    const std::int64_t share_bytes = kUnitBlock * dtype_bytes(DType::f32);
    EXPECT_EQ(group.bytes_sent() % share_bytes, 0);
    if (group.rank() == 0) count = group.bytes_sent() / share_bytes;
    pass(store, {0, 1, 2, 3}, 0);  // nothing stays on its way
  });
  return count;
}

TEST(ZeroStore, BringsEachUnitOnceAPassAndKeepsTheLastWherePassesTurn) {
  const auto there_and_back = [](ZeroStore& store) {
    pass(store, {0, 1, 2, 3}, 0);
    pass(store, {3, 2, 1, 0}, 0);
  };
  EXPECT_EQ(num_gathers(true, there_and_back), 4 + 2);
  EXPECT_EQ(num_gathers(false, there_and_back), 4 + 3);
  EXPECT_EQ(num_gathers(true,
                        [](ZeroStore& store) {  // as where every other layer has experts
                          for (const int unit : {0, 1, 2, 2, 1, 0}) {
                            store.prefetch(unit);
                            pass(store, {unit}, 0);
                          }
                        }),
            3 + 1);
}

TEST(ZeroStore, ForgetsTheOldestThatNobodyFetched) {
  EXPECT_EQ(num_gathers(true,
                        [](ZeroStore& store) {
                          for (const int unit : {0, 1, 2}) store.prefetch(unit);
                          store.fetch(2);
                          store.publish(0);  // what was on its way to this memory is not any more
                          expect_values(store, 0, 2);
                          store.release(2);
                          pass(store, {1}, 0);
                          pass(store, {0}, 0);
                        }),
            3 + 1);
}

TEST(ZeroStore, PrefetchesIntoFreeMemoryOnly) {
  EXPECT_EQ(num_gathers(true,
                        [](ZeroStore& store) {
                          store.fetch(0);
                          store.prefetch(1);
                          store.prefetch(1);
                          store.fetch(1);
                          store.prefetch(2);
                          expect_values(store, 0, 0);
                          expect_values(store, 0, 1);
                          EXPECT_THROW(store.fetch(2), LogicError);
                          EXPECT_THROW(store.value(2), LogicError);
                          store.release(0);
                          store.release(1);
                        }),
            2);
}

}  // namespace
}  // namespace jamba

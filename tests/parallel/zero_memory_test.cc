#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "parallel/zero.h"

namespace jamba {
namespace {

constexpr std::int64_t kLayers = 6;
constexpr std::int64_t kElements = 8 * kUnitBlock;  // of a layer

struct Bytes {
  std::int64_t values = 0, gradients = 0;
  friend bool operator==(const Bytes&, const Bytes&) = default;
};

/// What one rank holds for bfloat16 layers of one deep pool.
Bytes held(const ZeroOptions& options, int ranks, bool deep = true) {
  Bytes bytes;
  run_ranks(ranks, [&](Communicator& group) {
    Stream stream = Stream::cpu(1);
    const UnitSpec spec{.elements = kElements, .dtype = DType::bf16, .group = &group, .deep = deep};
    const ZeroStore store(stream, {kLayers, spec}, options);
    if (group.rank() + 1 == ranks) bytes = {store.value_bytes(), store.gradient_bytes()};
  });
  return bytes;
}

/// n elements of the model, on p ranks, s of a layer: values of 2 bytes, rests of 2, gradients
/// of 4.
TEST(ZeroMemory, IsThatOfItsFormulas) {
  const std::int64_t n = kLayers * kElements, s = kElements;
  for (const int p : {2, 4, 8}) {
    EXPECT_EQ(held({.stage = ZeroStage::none}, p), (Bytes{2 * n + 2 * n, 4 * n}));
    EXPECT_EQ(held({.stage = ZeroStage::optimizer}, p), (Bytes{2 * n + 2 * n / p, 4 * n}));
    EXPECT_EQ(held({.stage = ZeroStage::gradients}, p),
              (Bytes{2 * n + 2 * n / p, 4 * n / p + 2 * 4 * s}));
    EXPECT_EQ(held({.stage = ZeroStage::parameters}, p),
              (Bytes{4 * n / p + 2 * 2 * s, 4 * n / p + 2 * 4 * s}));
    EXPECT_EQ(held({.stage = ZeroStage::parameters}, p, false),
              (Bytes{4 * n / p + 2 * s, 4 * n / p + 4 * s}));
  }
}

TEST(ZeroMemory, OfOneRankIsThatOfStageNone) {
  const std::int64_t n = kLayers * kElements;
  for (const auto stage : {ZeroStage::none, ZeroStage::optimizer, ZeroStage::parameters}) {
    EXPECT_EQ(held({.stage = stage}, 1), (Bytes{4 * n, 4 * n}));
  }
}

/// log2(microbatches) sums of what a rank updates, or one.
TEST(ZeroMemory, OfATree) {
  const std::int64_t n = kLayers * kElements, s = kElements;
  const auto tree = [&](ZeroStage stage, std::int64_t num_micro, int ranks) {
    return held({stage, Accumulation::tree, num_micro, true}, ranks).gradients;
  };
  for (const int p : {2, 4}) {
    EXPECT_EQ(tree(ZeroStage::none, 1, p), 4 * n);
    EXPECT_EQ(tree(ZeroStage::none, 2, p), 4 * n + 4 * n / p);
    EXPECT_EQ(tree(ZeroStage::optimizer, 8, p), 4 * n + 3 * 4 * n / p);
    EXPECT_EQ(tree(ZeroStage::gradients, 1, p), 4 * n / p + 2 * 4 * s);
    EXPECT_EQ(tree(ZeroStage::gradients, 8, p), 3 * 4 * n / p + 2 * 4 * s);
  }
}

TEST(ZeroMemory, OfAGradientThatGathers) {
  run_ranks(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    const UnitSpec kept{.elements = 512, .group = &group, .keeps_gradient = true};
    const ZeroStore store(stream, {kept}, {.stage = ZeroStage::parameters});
    EXPECT_EQ(store.gradient_bytes(), 512 * 4);
    EXPECT_EQ(store.value_bytes(), 512 * 4 / 2 + 2 * 512 * 4);
  });
}

TEST(ZeroMemory, OfAPoolIsThatOfItsLargestUnit) {
  run_ranks(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    const UnitSpec small{.elements = 512, .group = &group},
        large{.elements = 2048, .group = &group};
    const UnitSpec other{.elements = 1024, .group = &group, .pool = 3, .deep = false};
    const ZeroStore store(stream, {small, large, other}, {.stage = ZeroStage::parameters});
    const std::int64_t shares = (512 + 2048 + 1024) / 2, pools = 2 * 2048 + 1024;
    EXPECT_EQ(store.value_bytes(), 4 * (shares + pools));
    EXPECT_EQ(store.gradient_bytes(), 4 * (shares + pools));
  });
}

TEST(ZeroMemory, WithoutTrainingHasNoGradients) {
  EXPECT_EQ(held({.stage = ZeroStage::parameters, .training = false}, 2).gradients, 0);
}

}  // namespace
}  // namespace jamba

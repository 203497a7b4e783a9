// One optimizer step: data parallelism, accumulation, skipped steps, memory.

#include "trainer/train_step.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>

#include "parallel/comm/thread_group.h"
#include "tests/trainer/step_fixture.h"

namespace jamba {
namespace {

using test::RandomTokens;
using test::small_run_config;
using test::StepRank;

TEST(TrainStep, DataParallelRanksReachTheGradientOfOneRank) {
  const RunConfig config = small_run_config();
  test::NamedTensors alone;
  StepOutcome expected;
  run_ranks(1, [&](Communicator& comm) {
    StepRank rank(config, comm);
    expected = rank.step(0);
    alone = rank.gradients();
  });
  for (const int size : {2, 4}) {
    run_ranks(size, [&](Communicator& comm) {
      StepRank rank(config, comm);
      const StepOutcome outcome = rank.step(0);
      const test::NamedTensors gradients = rank.gradients();
      if (comm.rank() != 0) return;
      test::expect_close(gradients, alone, 1e-6);
      EXPECT_EQ(outcome.losses.lm, expected.losses.lm);
      EXPECT_EQ(outcome.losses.aux, expected.losses.aux);
      EXPECT_NEAR(outcome.grad_norm, expected.grad_norm, 1e-6 * expected.grad_norm);
    });
  }
}

TEST(TrainStep, AllRanksHoldTheSameWeights) {
  const RunConfig config = small_run_config();
  std::vector<std::vector<float>> weights(4);
  run_ranks(4, [&](Communicator& comm) {
    StepRank rank(config, comm);
    for (std::int64_t step = 0; step < 3; ++step) rank.step(step);
    std::vector<float>& mine = weights[static_cast<std::size_t>(comm.rank())];
    for (const Parameters::Entry& entry : rank.rank.parameters().entries()) {
      const float* begin = entry.weight.value.ptr<float>();
      mine.insert(mine.end(), begin, begin + entry.numel());
    }
  });
  for (const auto& w : weights) EXPECT_EQ(w, weights[0]);
}

TEST(TrainStep, TheSameRunGivesTheSameBits) {
  const RunConfig config = small_run_config();
  std::vector<test::NamedTensors> weights;
  for (int repeat = 0; repeat < 2; ++repeat) {
    run_ranks(2, [&](Communicator& comm) {
      StepRank rank(config, comm);
      for (std::int64_t step = 0; step < 3; ++step) rank.step(step);
      test::NamedTensors mine = rank.weights();
      if (comm.rank() == 0) weights.push_back(std::move(mine));
    });
  }
  EXPECT_EQ(weights[0], weights[1]);
}

TEST(TrainStep, ANonFiniteGradientOfOneRankIsSkippedByAll) {
  const RunConfig config = small_run_config();
  run_ranks(2, [&](Communicator& comm) {
    StepRank rank(config, comm);
    rank.step(0);
    const test::NamedTensors before = rank.weights();
    // Rank 1 alone meets an infinite embedding, so only its gradients and losses are not finite.
    float& weight =
        rank.rank.parameters().entry("model.embed_tokens.weight").weight.value.ptr<float>()[24 * 3];
    const float kept = weight;
    if (comm.rank() == 1) weight = INFINITY;
    const StepOutcome outcome = rank.step(1);
    weight = kept;
    EXPECT_TRUE(outcome.skipped);
    EXPECT_EQ(rank.weights(), before);
    EXPECT_FALSE(rank.step(2).skipped);
  });
}

TEST(TrainStep, ClippingBoundsTheUpdateNotTheLoggedNorm) {
  RunConfig config = small_run_config();
  config.optimizer.grad_clip = 1e-3;
  run_ranks(1, [&](Communicator& comm) {
    StepRank rank(config, comm);
    EXPECT_GT(rank.step(0).grad_norm, 1e-3);
  });
}

TEST(TrainStep, StopOnOneRankReachesAll) {
  const RunConfig config = small_run_config();
  run_ranks(3, [&](Communicator& comm) {
    RunConfig three = config;
    three.train.global_batch_size = 6;
    StepRank rank(three, comm);
    EXPECT_FALSE(rank.step(0).stop_requested);
    EXPECT_TRUE(rank.step(1, comm.rank() == 2).stop_requested);
  });
}

TEST(TrainStep, AWarmStepAllocatesNoTensorMemory) {
  for (const Recompute recompute : {Recompute::none, Recompute::block}) {
    RunConfig config = small_run_config();
    config.train.recompute = recompute;
    run_ranks(1, [&](Communicator& comm) {
      StepRank rank(config, comm);
      for (std::int64_t step = 0; step < 3; ++step) rank.step(step);
      const std::int64_t arenas = rank.rank.runner().num_allocations();
      const std::size_t heap = mallinfo2().uordblks + mallinfo2().hblkhd;
      for (std::int64_t step = 3; step < 6; ++step) rank.step(step);
      EXPECT_EQ(rank.rank.runner().num_allocations(), arenas);
      EXPECT_EQ(mallinfo2().uordblks + mallinfo2().hblkhd, heap) << "bytes in use grew";
    });
  }
}

}  // namespace
}  // namespace jamba

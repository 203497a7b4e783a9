// What must hold on every mesh beside the sums themselves.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "parallel/comm/thread_group.h"
#include "tests/trainer/layouts.h"
#include "tests/trainer/step_fixture.h"
#include "trainer/config/config.h"

namespace jamba {
namespace {

using test::Layout;
using test::StepRank;

/// The layouts of float32 models, as a reference for what a mesh is called in messages.
std::vector<Layout> float32_layouts() {
  std::vector<Layout> out;
  for (const Layout& layout : test::layouts()) {
    if (!layout.name.starts_with("bf16")) out.push_back(layout);
  }
  return out;
}

// Clipping with a norm that counts a shard twice, or not at all, trains another model (T3, T5).
TEST(GradientNorm, OfOnesIsTheRootOfTheNumberOfParametersOnEveryMesh) {
  for (const Layout& layout : float32_layouts()) {
    SCOPED_TRACE(layout.name);
    const RunConfig config = test::layout_config(layout);
    const auto count = static_cast<double>(count_parameters(config.model).total);
    run_ranks(layout.ranks, [&](Communicator& world) {
      StepRank rank(config, world);
      rank.step(0);
      Parameters& parameters = rank.rank.parameters();
      for (const Parameters::Entry& entry : parameters.entries()) {
        const Tensor g = parameters.gradient(entry, parameters.owned(entry));
        std::fill_n(g.ptr<float>(), g.numel(), 1.0f);
      }
      EXPECT_EQ(rank.train_step.gradient_norm(), std::sqrt(count));
    });
  }
}

// A gradient of a replicated parameter that misses a sum over ranks differs between them (T1).
TEST(TensorParallel, ReplicatedGradientsAreTheSameBitsOnEveryRank) {
  for (const char* name : {"tp2", "tp4", "tp2_plain", "tp4_plain", "tp2_cp2",
                           "projection_biases_tp2", "no_inner_norms_tp2_cp2", "tied_tp2"}) {
    SCOPED_TRACE(name);
    const Layout& layout = *std::ranges::find(test::layouts(), name, &Layout::name);
    run_ranks(layout.ranks, [&](Communicator& world) {
      StepRank rank(test::layout_config(layout), world);
      rank.step(0);
      int compared = 0;
      Communicator& tp = rank.mesh.tp();
      for (const Parameters::Entry& entry : rank.rank.parameters().entries()) {
        if (entry.shard.copies == 1) continue;
        const Tensor mine =
            rank.rank.parameters().gradient(entry, rank.rank.parameters().owned(entry));
        const bool everywhere = entry.shard.copies == tp.size();
        Communicator& group = everywhere ? tp : rank.mesh.kv();
        std::vector<float> all(static_cast<std::size_t>(group.size() * mine.numel()));
        group.all_gather(rank.stream, Tensor(all.data(), DType::f32, {std::ssize(all)}), mine);
        for (std::int64_t i = 0; i < std::ssize(all); ++i) {
          ASSERT_EQ(all[static_cast<std::size_t>(i)],
                    all[static_cast<std::size_t>(i % mine.numel())])
              << entry.spec.name;
        }
        ++compared;
      }
      EXPECT_GT(compared, 8);
    });
  }
}

/// Three steps, then weights and losses.
struct Trained {
  test::NamedTensors weights;
  std::vector<double> losses, norms;
  friend bool operator==(const Trained&, const Trained&) = default;
};

Trained train(const std::vector<std::string>& settings, int ranks) {
  const RunConfig config = with_overrides(test::small_run_config(), settings);
  Trained out;
  run_ranks(ranks, [&](Communicator& world) {
    StepRank rank(config, world);
    Trained mine;
    for (std::int64_t step = 0; step < 3; ++step) {
      const StepOutcome outcome = rank.step(step);
      mine.losses.push_back(outcome.losses.total);
      mine.norms.push_back(outcome.grad_norm);
    }
    mine.weights = rank.weights();
    if (world.rank() == 0) out = std::move(mine);
  });
  return out;
}

TEST(DeterministicTree, AnyNumberOfDataParallelRanksGivesTheSameBits) {
  const std::vector<std::string> tree = {"parallel.deterministic=tree",
                                         "train.global_batch_size=16"};
  const auto with = [&](std::initializer_list<std::string> more) {
    std::vector<std::string> all = tree;
    all.insert(all.end(), more);
    return all;
  };
  const Trained want = train(tree, 1);
  ASSERT_EQ(want.losses.size(), 3u);
  for (const int dp : {2, 4, 8}) EXPECT_EQ(train(tree, dp), want) << "dp " << dp;
  for (const char* stage : {"1", "2", "3"}) {
    const std::string zero = std::string("parallel.zero=") + stage;
    EXPECT_EQ(train(with({zero}), 1), want) << "alone, " << zero;
    EXPECT_EQ(train(with({zero}), 4), want) << "dp 4, " << zero;
    EXPECT_EQ(train(with({zero, "parallel.pp=2"}), 4), want) << "dp 2, pp 2, " << zero;
  }
  EXPECT_EQ(train(with({"parallel.pp=2"}), 2), want);
  EXPECT_EQ(train(with({"parallel.pp=4"}), 8), want);
  EXPECT_EQ(train(with({"parallel.pp=2", "parallel.pp_chunks=2"}), 4), want);
  EXPECT_EQ(train(with({"train.recompute=block"}), 4), want);
}

TEST(Mesh, PipelinesAndShardsChangeNoBit) {
  const Trained want = train({}, 2);
  EXPECT_EQ(train({"parallel.zero=1"}, 2), want);
  EXPECT_EQ(train({"parallel.pp=2"}, 4), want);
  EXPECT_EQ(train({"parallel.pp=2", "parallel.zero=1", "parallel.pp_chunks=2"}, 4), want);
  EXPECT_EQ(train({"parallel.zero=3"}, 2), train({"parallel.zero=2"}, 2));
}

TEST(Mesh, TheSameMeshGivesTheSameBits) {
  const std::vector<std::string> all = {"parallel.tp=2", "parallel.pp=2", "parallel.cp=2",
                                        "parallel.ep=2", "parallel.zero=3"};
  EXPECT_EQ(train(all, 8), train(all, 8));
}

// The auxiliary loss by itself: its scale must not depend on how tokens are spread (T6).
TEST(AuxiliaryLoss, ItsGradientIsTheSameOnEveryMeshAndForAnyMicrobatches) {
  const auto gradients = [](RunConfig config, int ranks) {
    config.model.router_aux_loss_coef = 1;
    config.model.router_z_loss_coef = 0.1;
    test::NamedTensors out;
    run_ranks(ranks, [&](Communicator& world) {
      StepRank rank(config, world);
      rank.tokens.ignore_all_targets();
      rank.step(0);
      test::NamedTensors mine = rank.gradients();
      std::erase_if(mine, [](const auto& item) { return !item.first.ends_with("router.weight"); });
      if (world.rank() == 0) out = std::move(mine);
    });
    return out;
  };
  for (const char* kind : {"pooled", "per_layer"}) {
    const std::string aux = std::string("model.aux_loss=") + kind;
    const test::NamedTensors want = gradients(with_overrides(test::small_run_config(), {{aux}}), 1);
    ASSERT_EQ(want.size(), 4u);
    for (const std::string micro : {"1", "4", "8"}) {
      const std::vector<std::string> settings = {aux, "train.micro_batch_size=" + micro};
      test::expect_close(gradients(with_overrides(test::small_run_config(), settings), 1), want,
                         1e-5);
    }
    for (const Layout& layout : float32_layouts()) {
      if (!layout.model.empty()) continue;
      SCOPED_TRACE(layout.name);
      Layout with_kind = layout;
      with_kind.model = aux;
      test::expect_close(gradients(test::layout_config(with_kind), layout.ranks), want, 1e-5);
    }
  }
}

TEST(ExpertParallel, AllTokensToTheFirstExpertsIsAnOrdinaryCase) {
  RunConfig config = test::small_run_config();
  config.model.num_experts_per_tok = 1;
  const auto collapsed = [&](const std::vector<std::string>& settings, int ranks) {
    std::vector<double> losses;
    run_ranks(ranks, [&](Communicator& world) {
      StepRank rank(with_overrides(config, settings), world);
      // Equal logits everywhere: ties go to the first expert, all others starve.
      for (const Parameters::Entry& entry : rank.rank.parameters().entries()) {
        if (!entry.spec.name.ends_with("router.weight")) continue;
        zero(rank.stream, entry.weight.value);
      }
      std::vector<double> mine;
      const StepOutcome first = rank.step(0);
      EXPECT_FALSE(first.skipped);
      EXPECT_EQ(first.expert_load_max, 4);
      mine.push_back(first.losses.total);
      for (std::int64_t step = 1; step < 5; ++step) {
        const StepOutcome outcome = rank.step(step);
        EXPECT_FALSE(outcome.skipped);
        mine.push_back(outcome.losses.total);
      }
      if (world.rank() == 0) losses = mine;
    });
    return losses;
  };
  const std::vector<double> want = collapsed({}, 1);
  for (const auto& [settings, ranks] : std::vector<std::pair<std::vector<std::string>, int>>{
           {{"parallel.ep=2"}, 2},
           {{"parallel.ep=4"}, 4},
           {{"parallel.ep=2", "parallel.tp=2"}, 4},
           {{"parallel.ep=2", "parallel.cp=2", "parallel.pp=2"}, 4}}) {
    EXPECT_THAT(collapsed(settings, ranks), testing::Pointwise(testing::DoubleNear(1e-4), want));
  }
}

TEST(ExpertParallel, ACapacityDropsWhatIsTooMuchAndCountsIt) {
  RunConfig config = test::small_run_config();
  const auto outcome = [&](double factor, const char* ep, int ranks) {
    config.model.expert_capacity_factor = factor;
    StepOutcome out;
    run_ranks(ranks, [&](Communicator& world) {
      StepRank rank(with_overrides(config, {{ep}}), world);
      const StepOutcome mine = rank.step(0);
      if (world.rank() == 0) out = mine;
    });
    return out;
  };
  const StepOutcome dropless = outcome(0, "parallel.ep=1", 1);
  EXPECT_EQ(dropless.dropped_rows, 0);
  EXPECT_EQ(outcome(4, "parallel.ep=1", 1).losses.lm, dropless.losses.lm) << "room for all";
  const StepOutcome tight = outcome(0.5, "parallel.ep=1", 1);
  EXPECT_GT(tight.dropped_rows, 8 * 21 * 2 * 4 / 4) << "half of the mean: at least half goes";
  EXPECT_LT(tight.dropped_rows, 8 * 21 * 2 * 4);
  EXPECT_NE(tight.losses.lm, dropless.losses.lm);
  const StepOutcome shared = outcome(0.5, "parallel.ep=2", 2);
  EXPECT_EQ(shared.dropped_rows, tight.dropped_rows) << "the same microbatches drop the same";
  EXPECT_NEAR(shared.losses.lm, tight.losses.lm, 1e-5);
}

TEST(ExpertParallel, ForcedBalanceLoadsAllExpertsAlike) {
  RunConfig config = test::small_run_config();
  config.model.force_balanced_routing = true;
  run_ranks(2, [&](Communicator& world) {
    StepRank rank(with_overrides(config, {{"parallel.ep=2"}}), world);
    EXPECT_NEAR(rank.step(0).expert_load_max, 1, 0.01);
  });
}

}  // namespace
}  // namespace jamba

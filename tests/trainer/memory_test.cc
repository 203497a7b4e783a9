// Memory of a rank, against closed forms.

#include <gtest/gtest.h>

#include <array>

#include "parallel/comm/thread_group.h"
#include "tests/trainer/step_fixture.h"
#include "trainer/config/config.h"

namespace jamba {
namespace {

/// Device memory of rank 0 after two steps.
struct Memory {
  std::int64_t values = 0, gradients = 0, optimizer = 0, activations = 0, scratch = 0;
};

Memory measure(const RunConfig& config, int ranks) {
  Memory out;
  run_ranks(ranks, [&](Communicator& world) {
    test::StepRank rank(config, world);
    rank.step(0);
    rank.step(1);
    if (world.rank() > 0) return;
    const ZeroStore& store = rank.rank.parameters().store();
    out = {store.value_bytes(), store.gradient_bytes(), rank.rank.optimizer().bytes(),
           rank.rank.runner().activation_bytes(), rank.rank.runner().scratch_bytes()};
  });
  return out;
}

/// Elements of the units, padded for `ranks`, and of the memory that units take turns in: for what
/// stays float32, matrices and experts, twice the largest of a layer and once that of both ends.
struct Elements {
  std::int64_t all = 0, pools = 0;
};

Elements elements(const ModelConfig& c, std::int64_t ranks) {
  Elements out;
  std::map<std::pair<std::int64_t, int>, std::int64_t> units;  // (part, kind)
  for (const ParameterSpec& spec : parameter_specs(c)) {
    const int kind = spec.expert ? 2 : spec.keep_float32 ? 0 : 1;
    units[{spec.part, kind}] += (spec.numel() + kUnitBlock - 1) / kUnitBlock * kUnitBlock;
  }
  std::array<std::int64_t, 3> layer{}, end{};
  for (auto& [unit, size] : units) {
    const auto& [part, kind] = unit;
    const std::int64_t whole = ranks * kUnitBlock;
    size = (size + whole - 1) / whole * whole;
    out.all += size;
    const bool is_end = part == kEmbeddingPart || part == head_part(c);
    std::int64_t& largest = (is_end ? end : layer)[static_cast<std::size_t>(kind)];
    largest = std::max(largest, size);
  }
  for (std::size_t kind = 0; kind < 3; ++kind) out.pools += 2 * layer[kind] + end[kind];
  return out;
}

TEST(Memory, OfZeroStagesIsTheClosedForm) {
  for (const int ranks : {2, 4}) {
    const auto stage = [&](const char* zero) {
      return measure(with_overrides(test::small_run_config(), {{zero}}), ranks);
    };
    const Elements n = elements(test::small_run_config().model, ranks);
    const std::int64_t all = 4 * n.all, share = all / ranks, pools = 4 * n.pools;
    const Memory none = stage("parallel.zero=0");
    EXPECT_EQ(none.values, all);
    EXPECT_EQ(none.gradients, all);
    EXPECT_EQ(none.optimizer, 2 * all);
    const Memory optimizer = stage("parallel.zero=1");
    EXPECT_EQ(optimizer.values, all);
    EXPECT_EQ(optimizer.gradients, all);
    EXPECT_EQ(optimizer.optimizer, 2 * share);
    const Memory gradients = stage("parallel.zero=2");
    EXPECT_EQ(gradients.values, all);
    EXPECT_EQ(gradients.gradients, share + pools);
    EXPECT_EQ(gradients.optimizer, 2 * share);
    const Memory parameters = stage("parallel.zero=3");
    EXPECT_EQ(parameters.values, share + pools);
    EXPECT_EQ(parameters.gradients, share + pools);
    EXPECT_EQ(parameters.optimizer, 2 * share);
  }
}

TEST(Memory, OfParametersFallsWithTensorAndExpertRanks) {
  RunConfig c = test::small_run_config();
  c.model.hidden_size = 96;  // so that blocks of kUnitBlock waste little
  c.model.intermediate_size = 256;
  const auto with = [&](const char* setting, int ranks) {
    return static_cast<double>(measure(with_overrides(c, {{setting}}), ranks).values);
  };
  const double one = with("parallel.tp=1", 1);
  EXPECT_NEAR(with("parallel.tp=2", 2) / one, 1.0 / 2, 0.03);
  EXPECT_NEAR(with("parallel.tp=4", 4) / one, 1.0 / 4, 0.04);
  const ParameterCount count = count_parameters(c.model);
  const auto experts = static_cast<double>(count.experts) / static_cast<double>(count.total);
  EXPECT_NEAR(with("parallel.ep=4", 4) / one, 1 - experts * 3 / 4, 0.02);
}

TEST(Memory, OfActivationsFallsLikeOneOverContextRanks) {
  RunConfig c = test::small_run_config();
  c.data.seq_len = 4096;
  c.train.micro_batch_size = 1;
  c.train.global_batch_size = 1;
  const auto with = [&](const char* setting, int ranks) {
    return measure(with_overrides(c, {{setting}}), ranks);
  };
  const Memory one = with("parallel.cp=1", 1), two = with("parallel.cp=2", 2),
               four = with("parallel.cp=4", 4);
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  };
  EXPECT_NEAR(share(two.activations, one.activations), 1.0 / 2, 0.01);
  EXPECT_NEAR(share(four.activations, one.activations), 1.0 / 4, 0.01);
  // Scratch holds more than that where heads are few: attention's backward keeps sums of keys'
  // gradients by segments of queries, as many segments as give all threads something to do.
  EXPECT_LT(four.scratch, one.scratch);
}

TEST(Memory, OfTheResidualStreamFallsWithSequenceParallelism) {
  RunConfig c = test::small_run_config();
  c.train.recompute = Recompute::block;  // what is kept is the stream between layers
  c.data.seq_len = 256;
  const auto with = [&](const std::vector<std::string>& settings, int ranks) {
    return static_cast<double>(measure(with_overrides(c, settings), ranks).activations);
  };
  const double plain = with({"parallel.tp=4", "parallel.sequence_parallel=false"}, 4);
  EXPECT_LT(with({"parallel.tp=4"}, 4), 0.75 * plain);
}

TEST(Memory, OfPipelineStagesHoldsTheMicrobatchesInFlight) {
  const auto first_stage = [&](const char* pp, int ranks) {
    return static_cast<double>(
        measure(with_overrides(test::small_run_config(), {{pp}}), ranks).activations);
  };
  // Half of the layers, two microbatches in flight; a quarter of them, four.
  const double one = first_stage("parallel.pp=1", 1);
  EXPECT_NEAR(first_stage("parallel.pp=2", 2) / one, 1, 0.15);
  EXPECT_NEAR(first_stage("parallel.pp=4", 4) / one, 1, 0.25);
}

}  // namespace
}  // namespace jamba

// Every mesh against one rank: losses, each parameter's gradient, the updated weights.

#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "tests/trainer/layouts.h"
#include "tests/trainer/step_fixture.h"

namespace jamba {
namespace {

using test::Layout;

/// One rank's result, computed once for all layouts of a model.
const test::StepResult& reference(const Layout& layout) {
  static std::map<std::string, test::StepResult> known;
  const auto it = known.find(layout.model);
  if (it != known.end()) return it->second;
  const std::unique_ptr<Communicator> alone = make_single_rank();
  return known[layout.model] = test::one_step(test::reference_config(layout), *alone);
}

class Layouts : public testing::TestWithParam<Layout> {};

TEST_P(Layouts, ComputeWhatOneRankComputes) {
  const Layout& layout = GetParam();
  std::vector<StepOutcome> outcomes(static_cast<std::size_t>(layout.ranks));
  test::StepResult got;
  run_ranks(layout.ranks, [&](Communicator& world) {
    test::StepResult mine = test::one_step(test::layout_config(layout), world);
    outcomes[static_cast<std::size_t>(world.rank())] = mine.outcome;
    if (world.rank() == 0) got = std::move(mine);
  });
  test::expect_close(got, reference(layout), layout.tolerance);
  for (const StepOutcome& outcome : outcomes) {  // every rank decides alike
    EXPECT_EQ(outcome.grad_norm, got.outcome.grad_norm);
    EXPECT_EQ(outcome.losses.total, got.outcome.losses.total);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Layouts, testing::ValuesIn(test::layouts()),
                         [](const auto& layout) { return layout.param.name; });

}  // namespace
}  // namespace jamba

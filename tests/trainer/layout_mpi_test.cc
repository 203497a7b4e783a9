// The layouts that have as many ranks as this job, on real MPI ranks with all guards on.

#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "tests/support/mpi_main.h"
#include "tests/trainer/layouts.h"
#include "tests/trainer/step_fixture.h"

namespace jamba {
namespace {

TEST(LayoutsOverMpi, ComputeWhatOneRankComputes) {
  Communicator& world = test::mpi_session().world();
  world.set_guards({.compare_calls = true, .timeout_seconds = 60});
  std::map<std::string, test::StepResult> references;
  int compared = 0;
  for (const test::Layout& layout : test::layouts()) {
    if (layout.ranks != world.size()) continue;
    SCOPED_TRACE(layout.name);
    if (!references.contains(layout.model)) {
      const std::unique_ptr<Communicator> alone = make_single_rank();
      references[layout.model] = test::one_step(test::reference_config(layout), *alone);
    }
    const test::StepResult got = test::one_step(test::layout_config(layout), world);
    test::expect_close(got, references.at(layout.model), layout.tolerance);
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

}  // namespace
}  // namespace jamba

// Real MPI ranks against one rank that takes all microbatches.

#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "tests/support/mpi_main.h"
#include "tests/trainer/step_fixture.h"

namespace jamba {
namespace {

TEST(DataParallelOverMpi, ReachesTheGradientAndTheLossesOfOneRank) {
  Communicator& world = test::mpi_session().world();
  for (const Recompute recompute : {Recompute::none, Recompute::block}) {
    RunConfig config = test::small_run_config();
    config.train.recompute = recompute;
    test::StepRank rank(config, world);
    const std::unique_ptr<Communicator> single = make_single_rank();
    test::StepRank alone(config, *single);
    for (std::int64_t step = 0; step < 3; ++step) {
      const StepOutcome got = rank.step(step);
      const StepOutcome want = alone.step(step);
      test::expect_close(rank.gradients(), alone.gradients(), step == 0 ? 1e-6 : 1e-4);
      EXPECT_NEAR(got.losses.lm, want.losses.lm, step == 0 ? 0 : 1e-5);
      EXPECT_NEAR(got.losses.aux, want.losses.aux, step == 0 ? 0 : 1e-5);
      EXPECT_NEAR(got.grad_norm, want.grad_norm, 1e-4 * want.grad_norm);
      EXPECT_EQ(got.expert_load_max, want.expert_load_max);
    }
  }
}

}  // namespace
}  // namespace jamba

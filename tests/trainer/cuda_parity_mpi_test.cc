// The whole trainer on CUDA devices, one a rank, beside the CPU in the same process.

#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "tests/support/device.h"
#include "tests/support/mpi_main.h"
#include "tests/trainer/layouts.h"
#include "tests/trainer/step_fixture.h"

namespace jamba {
namespace {

constexpr double kTolerance = 1e-4;

Device my_device() { return {DeviceKind::cuda, test::mpi_session().local_rank()}; }

bool has_devices() { return cuda_devices().count >= test::mpi_session().local_size(); }

TEST(CudaParity, LayoutsComputeWhatOneRankOfTheCpuComputes) {
  if (!has_devices()) GTEST_SKIP() << "fewer CUDA devices than ranks";
  Communicator& world = test::mpi_session().world();
  world.set_guards({.timeout_seconds = 60});
  std::map<std::string, test::StepResult> references;
  int number = 0;
  for (const test::Layout& layout : test::layouts()) {
    if (layout.ranks != world.size()) continue;
    constexpr int kEvery = 4;  // emulated on two cores, each takes seconds
    if (number++ % kEvery != 0) continue;
    SCOPED_TRACE(layout.name);
    if (!references.contains(layout.model)) {
      const std::unique_ptr<Communicator> alone = make_single_rank();
      references[layout.model] = test::one_step(test::reference_config(layout), *alone);
    }
    const test::StepResult got = test::one_step(test::layout_config(layout), world, my_device());
    test::expect_close(got, references.at(layout.model), std::max(layout.tolerance, kTolerance));
  }
}

/// Meshes of the job's ranks.
std::vector<ParallelConfig> meshes(int ranks) {
  if (ranks == 1) return {{}};
  if (ranks == 2) return {{.tp = 2}, {.ep = 2}, {}};
  return {{.tp = 2, .ep = 2}, {.pp = 2, .zero = 1}, {.ep = 4}};
}

TEST(CudaParity, TwentyStepsFollowThoseOfTheCpu) {
  if (!has_devices()) GTEST_SKIP() << "fewer CUDA devices than ranks";
  Communicator& world = test::mpi_session().world();
  world.set_guards({.timeout_seconds = 60});
  for (const ParallelConfig& mesh : meshes(world.size())) {
    RunConfig config = test::small_run_config();
    config.train.steps = 20;
    config.train.micro_batch_size = 1;
    config.train.global_batch_size = 4;
    config.parallel = mesh;
    test::StepRank cpu(config, world), cuda(config, world, my_device());
    SCOPED_TRACE(fmt::format("tp {} pp {} ep {}", mesh.tp, mesh.pp, mesh.ep));
    for (std::int64_t step = 0; step < config.train.steps; ++step) {
      const StepOutcome want = cpu.step(step), got = cuda.step(step);
      const auto near = [&](double x, double y) {
        return std::abs(x - y) <= kTolerance * std::abs(y);
      };
      EXPECT_PRED2(near, got.losses.total, want.losses.total) << "step " << step;
      EXPECT_PRED2(near, got.losses.aux, want.losses.aux) << "step " << step;
      EXPECT_PRED2(near, got.grad_norm, want.grad_norm) << "step " << step;
      if (step % 5 == 0) test::expect_close(cuda.gradients(), cpu.gradients(), kTolerance);
    }
    test::expect_close(cuda.weights(), cpu.weights(), kTolerance);
  }
}

}  // namespace
}  // namespace jamba

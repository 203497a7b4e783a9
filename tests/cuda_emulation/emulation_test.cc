// What the emulation must stop, and what it must not.

#include <gtest/gtest.h>

#include <set>

#include "tests/cuda_emulation/planted.h"
#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/device.h"

namespace cuda_emulation::test {
namespace {

TEST(Emulation, StopsProgramsWithABug) {
  int stopped = 0;
  for (const Planted& bug : bugs()) {
    if (bug.checked_only && !jamba::test::checks_accesses()) continue;
    SCOPED_TRACE(bug.name);
    EXPECT_EXIT(bug.run(), ::testing::ExitedWithCode(kFailure), bug.words);
    ++stopped;
  }
  EXPECT_GE(stopped, jamba::test::checks_accesses() ? 30 : 15);
}

TEST(Emulation, LetsCorrectProgramsRunUnderEverySeed) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    set_seed(seed);
    EXPECT_EQ(run_correct_kernels(), "") << "seed " << seed;
  }
}

TEST(Emulation, ShowsAMissingWaitBetweenStreams) {
  std::set<int> with, without;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    set_seed(seed);
    with.insert(sum_over_streams(true));
    without.insert(sum_over_streams(false));
  }
  EXPECT_EQ(with, std::set<int>{7});
  EXPECT_GT(without.size(), 1u);
}

}  // namespace
}  // namespace cuda_emulation::test

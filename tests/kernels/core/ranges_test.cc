// What NVIDIA's profilers get to see, by the emulation's NVTX.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/stream.h"
#include "kernels/core/trace.h"
#include "tests/support/cuda_emulation/emulation.h"

namespace jamba {
namespace {

TEST(Ranges, AreTheNamesOfTheTrace) {
  Profile profile;
  Trace trace(10);
  for (Trace* const watching :
       {&trace, static_cast<Trace*>(nullptr)}) {  // seen without a trace too
    profile.trace = watching;
    const Range layer(profile, "layer 3 mamba+moe forward");
    { const ProfileScope part(profile, Part::matmul); }
    { const ProfileScope part(profile, Part::communication, "all_reduce 2.0 MB"); }
  }
  EXPECT_THAT(cuda_emulation::ranges(),
              testing::ElementsAre("layer 3 mamba+moe forward", "  matmul", "  all_reduce 2.0 MB",
                                   "layer 3 mamba+moe forward", "  matmul", "  all_reduce 2.0 MB"));
  EXPECT_EQ(trace.events().size(), 3u);
}

}  // namespace
}  // namespace jamba

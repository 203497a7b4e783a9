#include <nvtx3/nvToolsExt.h>

#include "tests/support/cuda_emulation/emulation.h"

namespace {

constexpr std::size_t kMostNames = 10'000;  // a whole training's would only fill memory
std::vector<std::string> names;
int depth = 0;

}  // namespace

int nvtxRangePushA(const char* name) {
  if (names.size() < kMostNames)
    names.push_back(std::string(static_cast<std::size_t>(2 * depth), ' ') + name);
  return depth++;
}

int nvtxRangePop() {
  if (depth == 0) cuda_emulation::fail("NVTX: a range ends that never began");
  return --depth;
}

namespace cuda_emulation {
const std::vector<std::string>& ranges() { return names; }
}  // namespace cuda_emulation

#include "kernels/core/profile.h"

namespace jamba {

const char* part_name(Part part) {
  static constexpr const char* kNames[kNumParts] = {"matmul",    "scan",          "attention",
                                                    "optimizer", "communication", "rest"};
  return kNames[static_cast<int>(part)];
}

}  // namespace jamba

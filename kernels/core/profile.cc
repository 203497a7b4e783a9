#include "kernels/core/profile.h"

#include "kernels/core/trace.h"

namespace jamba {

const char* part_name(Part part) {
  static constexpr const char* kNames[kNumParts] = {"matmul",    "scan",          "attention",
                                                    "optimizer", "communication", "rest"};
  return kNames[static_cast<int>(part)];
}

void ProfileScope::add_to_trace(Clock::time_point end) const {
  const auto ns = [](Clock::time_point time) {
    return std::chrono::nanoseconds(time.time_since_epoch()).count();
  };
  profile_.trace->add(Trace::kComputeLane, part_name(part_), ns(begin_), ns(end));
}

}  // namespace jamba

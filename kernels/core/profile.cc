#include "kernels/core/profile.h"

#include "kernels/core/backend.h"
#include "kernels/core/trace.h"

namespace jamba {

const char* part_name(Part part) {
  static constexpr const char* kNames[kNumParts] = {"matmul",    "scan",          "attention",
                                                    "optimizer", "communication", "rest"};
  return kNames[static_cast<int>(part)];
}

Range::Range(Profile& profile, const char* name)
    : profile_(profile),
      name_(name),
      begin_(watched(profile) ? Clock::now() : Clock::time_point()) {
  if (cuda::push_range != nullptr) cuda::push_range(name);
}

Range::~Range() {
  if (cuda::pop_range != nullptr) cuda::pop_range();
  if (profile_.trace == nullptr) return;
  const auto ns = [](Clock::time_point time) {
    return std::chrono::nanoseconds(time.time_since_epoch()).count();
  };
  profile_.trace->add(Trace::kComputeLane, name_, ns(begin_), ns(Clock::now()));
}

ProfileScope::ProfileScope(Profile& profile, Part part, const char* name)
    : profile_(profile),
      part_(part),
      range_(profile, name),
      timer_(profile.timer),
      span_(timer_ != nullptr ? timer_->begin(part) : 0),
      begin_(Clock::now()) {}

ProfileScope::~ProfileScope() {
  if (timer_ != nullptr) {
    timer_->end(span_);
  } else {
    profile_[part_] += seconds_since(begin_);
  }
}

bool Range::watched(const Profile& profile) {
  return profile.trace != nullptr || cuda::push_range != nullptr;
}

}  // namespace jamba

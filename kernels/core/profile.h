#pragma once
// Time and work by part of a step, collected by the operations themselves.

#include <array>
#include <cstdint>

#include "kernels/core/clock.h"

namespace jamba {

/// The parts that a step's time is split into.
enum class Part { matmul, scan, attention, optimizer, communication, rest };
inline constexpr int kNumParts = 6;
const char* part_name(Part part);

class Trace;

/// Accumulated seconds and matrix-product FLOPs. Reading the clock costs about 25 ns, so it is
/// always on.
struct Profile {
  std::array<double, kNumParts> seconds{};
  double matmul_flops = 0;
  Trace* trace = nullptr;  // who else gets to know of each scope; outlives its use here

  void reset() {
    seconds = {};
    matmul_flops = 0;
  }
  double& operator[](Part part) { return seconds[static_cast<std::size_t>(part)]; }
};

/// Adds the time of its scope to one part, and to the trace as an event of the part's name.
class ProfileScope {
 public:
  ProfileScope(Profile& profile, Part part)
      : profile_(profile), part_(part), begin_(Clock::now()) {}
  ~ProfileScope() {
    const Clock::time_point end = Clock::now();
    profile_[part_] += std::chrono::duration<double>(end - begin_).count();
    if (profile_.trace != nullptr) [[unlikely]]
      add_to_trace(end);
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  void add_to_trace(Clock::time_point end) const;

  Profile& profile_;
  Part part_;
  Clock::time_point begin_;
};

}  // namespace jamba

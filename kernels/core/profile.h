#pragma once
// Time and work by part of a step, collected by the operations themselves.

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/core/clock.h"

namespace jamba {

/// The parts that a step's time is split into.
enum class Part { matmul, scan, attention, optimizer, communication, rest };
inline constexpr int kNumParts = 6;
const char* part_name(Part part);

class Trace;

/// Takes the time of scopes somewhere else than on the host (device_times.h).
class PartTimer {
 public:
  virtual ~PartTimer() = default;
  /// The part's work begins here; returns what names this span of it.
  virtual std::size_t begin(Part) = 0;
  virtual void end(std::size_t span) noexcept = 0;
};

/// Accumulated seconds and matrix-product FLOPs. Reading the clock costs about 25 ns, so it is
/// always on.
struct Profile {
  std::array<double, kNumParts> seconds{};
  double matmul_flops = 0;
  Trace* trace = nullptr;      // who else gets to know of each scope; outlives its use here
  PartTimer* timer = nullptr;  // takes the seconds instead of the host's clock

  void reset() {
    seconds = {};
    matmul_flops = 0;
  }
  double& operator[](Part part) { return seconds[static_cast<std::size_t>(part)]; }
};

/// Names its scope to who watches: to the trace as an event of the compute lane, and in programs
/// with the CUDA backend to NVIDIA's profilers as an NVTX range of the calling thread. Ranges nest.
class Range {
 public:
  /// name: lives as long as the range.
  Range(Profile&, const char* name);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

  /// Whether anybody watches; if not, a name that costs something to make may be left empty.
  static bool watched(const Profile&);

 private:
  Profile& profile_;
  const char* name_;
  Clock::time_point begin_;
};

/// Adds the time of its scope to one part. A range of its own, with the part's name by default.
class ProfileScope {
 public:
  ProfileScope(Profile& profile, Part part) : ProfileScope(profile, part, part_name(part)) {}
  ProfileScope(Profile& profile, Part part, const char* name);
  ~ProfileScope();
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  Profile& profile_;
  Part part_;
  Range range_;
  PartTimer* timer_;
  std::size_t span_;
  Clock::time_point begin_;
};

}  // namespace jamba

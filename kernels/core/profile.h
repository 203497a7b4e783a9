#pragma once
// Time and work by part of a step, collected by the operations themselves.

#include <array>
#include <chrono>
#include <cstdint>

namespace jamba {

/// The parts that a step's time is split into.
enum class Part { matmul, scan, attention, optimizer, communication, rest };
inline constexpr int kNumParts = 6;
const char* part_name(Part part);

/// Accumulated seconds and matrix-product FLOPs. Reading the clock costs about 25 ns, so it is
/// always on.
struct Profile {
  std::array<double, kNumParts> seconds{};
  double matmul_flops = 0;

  void reset() { *this = Profile{}; }
  double& operator[](Part part) { return seconds[static_cast<std::size_t>(part)]; }
};

/// Adds the time of its scope to one part.
class ProfileScope {
 public:
  ProfileScope(Profile& profile, Part part)
      : target_(profile[part]), begin_(std::chrono::steady_clock::now()) {}
  ~ProfileScope() {
    target_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  double& target_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace jamba

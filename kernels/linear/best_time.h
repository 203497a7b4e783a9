#pragma once
// Times for rates at their best. Private to kernels/linear.

#include <algorithm>
#include <chrono>
#include <limits>

namespace jamba {

/// Seconds of the shortest call of run(), of those that fit in 0.2 s, one at least. A call before
/// them is not counted: it makes or chooses the kernels.
template <class Run>
double best_seconds(const Run& run) {
  using Clock = std::chrono::steady_clock;
  constexpr double kSeconds = 0.2;
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  run();
  double best = std::numeric_limits<double>::infinity();
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point begin = Clock::now();
    run();
    best = std::min(best, seconds_since(begin));
  } while (seconds_since(start) < kSeconds);
  return best;
}

}  // namespace jamba

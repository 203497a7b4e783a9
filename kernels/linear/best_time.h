#pragma once
// Times for rates at their best. Private to kernels/linear.

#include <algorithm>
#include <limits>

#include "kernels/core/clock.h"

namespace jamba {

/// Seconds of the shortest call of run(), of those that fit in 0.2 s, one at least. A call before
/// them is not counted: it makes or chooses the kernels.
template <class Run>
double best_seconds(const Run& run) {
  constexpr double kSeconds = 0.2;
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

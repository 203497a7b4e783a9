#include "trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace jamba {

double learning_rate(const OptimizerConfig& c, std::int64_t step, std::int64_t steps) {
  if (step < c.warmup_steps) {
    return c.lr * static_cast<double>(step + 1) / static_cast<double>(c.warmup_steps);
  }
  switch (c.schedule) {
    case ScheduleKind::constant:
      return c.lr;
    case ScheduleKind::cosine: {
      const auto span = static_cast<double>(std::max<std::int64_t>(steps - c.warmup_steps, 1));
      const double done = std::min(1.0, static_cast<double>(step - c.warmup_steps) / span);
      return c.min_lr + 0.5 * (c.lr - c.min_lr) * (1 + std::cos(std::numbers::pi * done));
    }
    case ScheduleKind::wsd: {
      const std::int64_t decay =
          c.decay_steps > 0 ? c.decay_steps : std::max<std::int64_t>(steps / 10, 1);
      const auto left = static_cast<double>(std::max<std::int64_t>(steps - step, 0));
      return c.min_lr + (c.lr - c.min_lr) * std::min(1.0, left / static_cast<double>(decay));
    }
  }
  return c.lr;
}

}  // namespace jamba

#pragma once
#include <cstdint>

#include "trainer/optim/optimizer_config.h"

namespace jamba {

/// Learning rate of one step (from 0) in a run of `steps` steps.
/// All schedules warm up linearly: lr * (step + 1) / warmup_steps. Then
///   constant: lr;
///   cosine:   from lr to min_lr along half a cosine that ends at `steps`;
///   wsd:      lr, then linearly to min_lr over the last decay_steps steps.
double learning_rate(const OptimizerConfig&, std::int64_t step, std::int64_t steps);

}  // namespace jamba

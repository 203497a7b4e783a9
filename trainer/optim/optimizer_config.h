#pragma once
#include <cstdint>

namespace jamba {

enum class ScheduleKind { constant, cosine, wsd };

/// AdamW and its learning-rate schedule. Units: steps count from 0.
struct OptimizerConfig {
  double lr = 3e-4;
  double min_lr = 0.0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // not on norms, biases, A_log, D, dt bias
  double grad_clip = 1.0;     // global norm; 0: off
  ScheduleKind schedule = ScheduleKind::cosine;
  std::int64_t warmup_steps = 0;
  std::int64_t decay_steps = 0;  // wsd: length of the final decay; 0: a tenth of the run
};

}  // namespace jamba

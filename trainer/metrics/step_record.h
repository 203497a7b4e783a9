#pragma once
// The figures of one optimizer step and of one evaluation, as every sink receives them.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/profile.h"

namespace jamba {

/// One step of the whole run: losses and rates are those of all ranks together.
/// Units: losses and entropies in nats; seconds; bytes; mfu is a fraction of peak_gflops.
struct StepRecord {
  std::int64_t step = 0;  // number of steps done, this one included
  std::int64_t total_steps = 0;
  std::int64_t tokens = 0;  // seen since the first step

  double loss = 0;  // what backward differentiated: lm_loss and the terms times coefficients
  double lm_loss = 0;
  double aux_loss = 0;  // this and the next two without coefficients
  double z_loss = 0;
  double activation_loss = 0;
  double grad_norm = 0;  // before clipping
  double lr = 0;

  double step_seconds = 0;
  double tokens_per_second = 0;
  double mfu = 0;
  double peak_gflops = 0;              // of all ranks; what mfu is measured against
  std::int64_t peak_memory_bytes = 0;  // of the largest rank or its device, since it started
  double expert_load_max = 0;          // busiest expert over mean, worst layer; 0: no experts
  double expert_entropy = 0;           // of the load over experts, mean over layers
  std::int64_t dropped_rows = 0;       // copies of tokens that experts had no room for
  std::int64_t skipped_steps = 0;      // so far
  /// Of this step, by Part, on rank 0. Absent: not timed (device_times.h).
  std::optional<std::array<double, kNumParts>> seconds;
  /// What rank 0 sent to others in this step, by axis of the mesh.
  std::vector<std::pair<std::string, std::int64_t>> sent_bytes;
  double seconds_left = 0;
};

/// Validation after a step.
struct EvalRecord {
  struct Source {
    std::string name;
    double loss = 0;             // nats a token
    double unigram_entropy = 0;  // of the source's own tokens: what ignoring the context costs
    std::int64_t tokens = 0;     // scored
  };
  std::int64_t step = 0;
  std::vector<Source> sources;
  double mean_loss = 0;
};

}  // namespace jamba

#pragma once
// A run's tensors under the names that checkpoints know.

#include <vector>

#include "trainer/checkpoint/state_slice.h"
#include "trainer/model/parameters.h"
#include "trainer/optim/adamw_optimizer.h"

namespace jamba {

/// float32 master weights, as "weight/<parameter>".
std::vector<StateSlice> weight_slices(const Parameters&);
/// Weights and both moments ("adam_m/...", "adam_v/..."): all that a resumed run needs.
std::vector<StateSlice> training_slices(const Parameters&, const AdamWOptimizer&);

}  // namespace jamba

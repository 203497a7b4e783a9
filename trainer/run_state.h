#pragma once
// A run's tensors under the names that checkpoints know, and where those checkpoints are.

#include <vector>

#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/state_slice.h"
#include "trainer/model/masters.h"
#include "trainer/optim/adamw_optimizer.h"

namespace jamba {

/// Which elements: of a rank's parameters those that it must hold to go on, or a share such that
/// all ranks of the mesh together give each logical element once.
enum class Elements { owned, share };

/// Master weights, as "weight/<parameter>". Good while the masters live.
std::vector<StateSlice> weight_slices(const Masters&, Elements);
/// Weights and both moments ("adam_m/...", "adam_v/..."): all that a resumed run needs.
std::vector<StateSlice> training_slices(const Masters&, const AdamWOptimizer&, Elements);

/// Where a run keeps its checkpoints.
std::string checkpoint_root(const std::string& run_dir);

/// A path given by a person: a checkpoint, a directory of checkpoints, or a run directory; of the
/// latter two the newest sound one.   Errors: as resolve_checkpoint.
FoundCheckpoint find_checkpoint(const std::string& path);

}  // namespace jamba

#pragma once
// Saving and loading a run's state: any set of slices out, any other set of slices in.

#include <span>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/state_slice.h"

namespace jamba {

/// Writes root/step-N, all ranks together. Slices may lie on a CUDA device: while one is written,
/// the next is on its way to the host. Each rank gives the slices that it alone holds; replicas
/// are given by one rank only, and a rank without slices writes no file.
/// Shapes: over all ranks, every element of every tensor exactly once.
/// Errors: the same on all ranks, from the lowest that failed, which the message names:
/// CannotCreateError, IoError (path and errno), CheckpointError for elements left out or given
/// twice. Then nothing is left of the attempt, and earlier checkpoints are as they were.
void save_checkpoint(Communicator&, const std::string& root, const CheckpointInfo&,
                     std::span<const StateSlice> slices);

/// Whether the wanted slices should name every tensor of the groups ("weight", "adam_m", ...) that
/// they read from, or may be a few of them.
enum class Wanted { whole_groups, some_tensors };

/// Fills the wanted slices from whichever stored slices cover them: the ranks, and the way tensors
/// are cut, may differ from those that saved. Each rank calls it for itself.
/// Verifies the hash of every file before it reads it, and of every stored slice it reads.
/// Errors: CheckpointError: damage, with file and tensor; or wanted tensors that differ from the
/// stored ones in name, shape or dtype, all of them listed. The wanted slices' content is then
/// unspecified.
/// Memory: of wanted slices on a device, a copy on the host.
void load_checkpoint(const std::string& path, std::span<const StateSlice> wanted,
                     Wanted = Wanted::whole_groups);

/// Errors: CheckpointError listing every field in which the checkpoint's model differs from
/// `model`.
void expect_same_model(const std::string& path, const Manifest&, const ModelConfig& model);

}  // namespace jamba

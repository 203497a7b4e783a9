#pragma once
// One rank's HDF5 file of a checkpoint.

#include <cstdint>
#include <string>

#include "data/hdf5/file.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/state_slice.h"

namespace jamba {

/// Writes slices one by one, so that not all need to be in memory at once.
/// Errors: CannotCreateError, IoError.
class ShardWriter {
 public:
  ShardWriter(const std::string& directory, std::int64_t step, int rank);
  /// data: on the CPU.
  void add(const StateSlice& slice);
  /// Closes the file, puts it on the disk and reads it back for its hash.
  Shard finish();

 private:
  std::int64_t step_;
  std::string name_;
  Hdf5Writer file_;
  Shard shard_;
};

/// Binds the bytes to what they are, so that no slice can stand for another.
std::string slice_hash(std::int64_t step, const SliceRecord& slice, const void* data);

}  // namespace jamba

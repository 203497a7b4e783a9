#pragma once
// Slices of a device's memory, one after the other, as the host can write them to a file.

#include <array>
#include <span>

#include "kernels/core/memory.h"
#include "trainer/checkpoint/state_slice.h"

namespace jamba {

/// Hands out slices in the host's memory. Those of a CUDA device come through two page-locked
/// buffers, on a stream of their own: while the caller writes one slice, the next is on its way.
class SnapshotReader {
 public:
  /// Waits until the device has made the slices. They stay as they are until the last was taken.
  explicit SnapshotReader(std::span<const StateSlice> slices);

  /// The next slice, good until the call after; null after the last.
  const StateSlice* next();

 private:
  void fetch(std::size_t i);

  Stream copies_;
  std::span<const StateSlice> slices_;
  std::array<Buffer, 2> staging_;
  std::array<StateSlice, 2> on_host_;
  std::size_t next_ = 0;
};

}  // namespace jamba

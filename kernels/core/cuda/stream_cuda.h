#pragma once
// The CUDA stream behind a Stream. Private to the CUDA backend.

#include <cuda_runtime.h>

#include <memory>

#include "kernels/core/stream.h"

namespace jamba::cuda {

/// The stream's handle; the stream must be one of a CUDA device.
cudaStream_t native(Stream&);
/// What the device can do.
const cudaDeviceProp& properties(Stream&);
/// Looks after what a stream's work may wait for in vain.
class WaitWatcher {
 public:
  virtual ~WaitWatcher() = default;
  /// Called now and then while the host waits for the stream; what it throws ends the wait.
  virtual void look() = 0;
  /// A wait has ended so. What would never end must end now: unwinding frees memory, and that waits
  /// for all of the device.
  virtual void give_up() noexcept = 0;
};
/// As long as its owner keeps it. Saying so again changes nothing.
void watch_waits(Stream&, std::weak_ptr<WaitWatcher>);

}  // namespace jamba::cuda

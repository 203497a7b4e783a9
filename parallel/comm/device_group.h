#pragma once
// How a group of ranks exchanges tensors that lie on CUDA devices. A program without the CUDA
// backend has no maker.

#include <memory>

#include "kernels/core/backend.h"
#include "parallel/comm/communicator.h"

namespace jamba {

class DeviceGroup {
 public:
  virtual ~DeviceGroup() = default;
  /// Starts an operation whose arguments are sound, on tensors of the stream's device. The host
  /// waits for nothing: finishing it makes the stream wait.
  virtual std::unique_ptr<RunningOperation> start(Stream&, const Operation&) = 0;
};

namespace cuda {

/// All ranks of the group make it together; the group, which ranks agree through, must outlive it.
JAMBA_WEAK std::unique_ptr<DeviceGroup> make_device_group(Communicator& group, Stream&,
                                                          Messages messages);

}  // namespace cuda

}  // namespace jamba

#pragma once
// The CUDA stream behind a Stream. Private to the CUDA backend.

#include <cuda_runtime.h>

#include <functional>
#include <memory>

#include "kernels/core/stream.h"

namespace jamba::cuda {

/// The stream's handle; the stream must be one of a CUDA device.
cudaStream_t native(Stream&);
/// What the device can do.
const cudaDeviceProp& properties(Stream&);
/// Calls `look`, while its owner keeps it, now and then when the host waits for the stream; what it
/// throws ends the wait.
void watch_waits(Stream&, std::weak_ptr<const std::function<void()>> look);

}  // namespace jamba::cuda

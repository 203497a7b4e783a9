#pragma once
// The CUDA stream behind a Stream. Private to the CUDA backend.

#include <cuda_runtime.h>

#include "kernels/core/stream.h"

namespace jamba::cuda {

/// The stream's handle; the stream must be one of a CUDA device.
cudaStream_t native(Stream&);
/// What the device can do.
const cudaDeviceProp& properties(Stream&);

}  // namespace jamba::cuda

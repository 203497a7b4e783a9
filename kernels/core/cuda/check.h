#pragma once
// Checked calls of the CUDA runtime. Private to the CUDA backend.

#include <cuda_runtime.h>

namespace jamba::cuda {

/// Throws: the call as written, the runtime's own message, the place. UnsupportedError if there is
/// no driver, device or code for it; everything else LogicError, since arguments are ours, and the
/// device may be unusable.
[[noreturn]] void fail_cuda(const char* file, int line, const char* call, cudaError_t error);

}  // namespace jamba::cuda

#define JAMBA_CUDA_CHECK(call)                                                           \
  do {                                                                                   \
    if (const cudaError_t jamba_error = (call); jamba_error != cudaSuccess) [[unlikely]] \
      ::jamba::cuda::fail_cuda(__FILE__, __LINE__, #call, jamba_error);                  \
  } while (false)

#pragma once
// What the CUDA backend does for the rest of kernels/core. Its functions are weak: a program that
// is linked without the backend has none of them, and linking it is all that adds one.

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/core/errors.h"
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

#define JAMBA_WEAK __attribute__((weak))

namespace jamba::cuda {

/// Devices that this process sees; `why` says what is missing if there is none.
JAMBA_WEAK int num_devices(std::string& why);
/// Name, multiprocessors, memory.
JAMBA_WEAK std::string describe_device(int index);
JAMBA_WEAK void synchronize_device(int index);
/// Whether a device can read another one's memory by itself.
JAMBA_WEAK bool can_access_peer(int index, int other);

// "name version" of each library that the program holds, by the code that uses it.
JAMBA_WEAK std::string runtime_version();
JAMBA_WEAK std::string matmul_library_version();
JAMBA_WEAK std::string attention_library_version();
JAMBA_WEAK std::string collectives_library_version();

/// Ranges of the calling thread for profilers.
JAMBA_WEAK void push_range(const char* name);
JAMBA_WEAK void pop_range();

/// Null if the memory is not there. Zeros are there on return.
JAMBA_WEAK void* allocate(int index, std::int64_t bytes, Fill);
/// Once nothing on the device can use it any more. Does not wait.
JAMBA_WEAK void release(int index, void* data) noexcept;
/// Page-locked memory of the host, which devices read and write by themselves.
JAMBA_WEAK void* allocate_pinned(std::int64_t bytes);
JAMBA_WEAK void release_pinned(void* data) noexcept;

JAMBA_WEAK std::unique_ptr<BackendState> make_stream(int index, StreamPriority);
JAMBA_WEAK void synchronize(Stream&);
JAMBA_WEAK void wait_for(Stream&, Stream& other);
JAMBA_WEAK void begin_device_times(Stream&);
JAMBA_WEAK void end_device_times(Stream&);
/// Between any two of device and host memory, ordered in the stream. Pageable host memory has been
/// read, or is filled, on return.
JAMBA_WEAK void copy_bytes(Stream&, void* to, const void* from, std::int64_t bytes);
JAMBA_WEAK void fill_bytes(Stream&, void* data, int byte, std::int64_t bytes);

}  // namespace jamba::cuda

namespace jamba {

/// A function of the CUDA backend.   Errors: UnsupportedError if the program has none.
template <class Function>
Function* backend_function(Function* function, const char* what) {
  if (function == nullptr)
    throw UnsupportedError(std::string(what) + ": this program is built without CUDA");
  return function;
}

}  // namespace jamba

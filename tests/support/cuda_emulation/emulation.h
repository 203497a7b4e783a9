#pragma once
// What the emulation offers to tests, and to the twins of CUDA's libraries beside it.

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace cuda_emulation {

/// The order of blocks, lanes and streams from here on. Also: JAMBA_EMULATION_SEED.
void set_seed(std::uint64_t seed);
/// Uniform in [0, n), of the same sequence.
std::uint32_t random_below(std::uint32_t n);

/// Prints the message, and which kernel, block and thread runs, and ends the process with
/// kFailure. code_address: what to blame.
[[noreturn]] void fail(const std::string& message, const void* code_address = nullptr);
inline constexpr int kFailure = 86;

/// Work of a library in a stream's order: called again and again, in between other streams' work,
/// until it returns true. It must not block.
void enqueue(cudaStream_t, const char* name, std::function<bool()> poll);

/// fail() unless the bytes lie within one live allocation of a device.
void expect_device_range(const void* data, std::size_t bytes, const char* what);
/// Whether an address is one of a device's, live or not.
bool is_device_address(const void* data);
/// Bytes that a library has written, for the checks of kernels that read them.
void mark_written(const void* data, std::size_t bytes);
/// With the checks: fail() if a kernel, copy or library has not written all of the bytes.
void expect_written(const void* data, std::size_t bytes, const char* what);

/// The names of all ranges that were pushed (NVTX), in order, each indented by two spaces for every
/// range around it.
const std::vector<std::string>& ranges();

/// Whether NCCL's communicators of this process report, in the background, that they lost a rank.
void break_connections(bool broken);

/// Opens device memory to the host while it lives.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace cuda_emulation

// cudaMalloc, copies and fills.

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/support/cuda_emulation/check.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/cuda_emulation/streams.h"

using namespace cuda_emulation;

namespace {

/// Page-locked memory of the host, by begin.
std::map<const char*, std::size_t>& pinned() {
  static auto* const all = new std::map<const char*, std::size_t>;
  return *all;
}

bool is_pinned(const void* data, std::size_t bytes) {
  const auto* const at = static_cast<const char*>(data);
  auto it = pinned().upper_bound(at);
  if (it == pinned().begin()) return false;
  --it;
  if (at >= it->first + it->second) return false;
  if (at + bytes > it->first + it->second) fail("copy past the end of page-locked memory");
  return true;
}

const char* kind_name(bool to_device, bool from_device) {
  if (to_device) return from_device ? "device to device" : "host to device";
  return from_device ? "device to host" : "host to host";
}

void copy(char* to, const char* from, std::size_t bytes, bool to_device, bool from_device) {
  if (to_device) expect_device_range(to, bytes, "copy to");
  if (from_device) expect_device_range(from, bytes, "copy from");
  const DeviceAccess access;
  std::memmove(to, from, bytes);
  if (to_device && from_device)
    check::tell(check::copied, static_cast<const char*>(to), from, bytes);
  if (to_device && !from_device) mark_written(to, bytes);
}

}  // namespace

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  int device = 0;
  cudaGetDevice(&device);
  *data = allocate(device, bytes);
  return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* data) {
  if (data == nullptr) return cudaSuccess;
  drain_all();  // as cudaFree does
  release(data);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  *data = std::malloc(bytes);
  if (*data == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*data, 0xFF, bytes);
  pinned()[static_cast<const char*>(*data)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* data) {
  if (data == nullptr) return cudaSuccess;
  if (pinned().erase(static_cast<const char*>(data)) == 0)
    fail("cudaFreeHost of memory that is not page-locked");
  drain_all();
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const bool to_device = is_device_address(to), from_device = is_device_address(from);
  const int actual = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                               : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  if (kind != cudaMemcpyDefault && kind != actual)
    fail(std::string("copy with the wrong kind: it is ") + kind_name(to_device, from_device));
  if (to_device) expect_device_range(to, bytes, "copy to");
  if (from_device) expect_device_range(from, bytes, "copy from");
  auto* const target = static_cast<char*>(to);
  const auto* const source = static_cast<const char*>(from);
  if (!from_device && !is_pinned(from, bytes)) {
    // What is not page-locked is read before the call returns.
    const auto staged = std::make_shared<std::vector<char>>(source, source + bytes);
    issue(stream, "copy from the host", [=] {
      copy(target, staged->data(), bytes, to_device, false);
      return true;
    });
  } else {
    issue(stream, "copy", [=] {
      copy(target, source, bytes, to_device, from_device);
      return true;
    });
  }
  // What is not page-locked is filled before the call returns.
  if (!to_device && !is_pinned(to, bytes)) drain(stream);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
  attributes->type = is_device_address(data) ? cudaMemoryTypeDevice
                     : is_pinned(data, 1)    ? cudaMemoryTypeHost
                                             : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int byte, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  expect_device_range(data, bytes, "cudaMemsetAsync");
  issue(stream, "fill", [=] {
    expect_device_range(data, bytes, "cudaMemsetAsync");
    const DeviceAccess access;
    std::memset(data, byte, bytes);
    // 0xFF is what tests fill memory with that nobody has written yet.
    const auto* const begin = static_cast<const char*>(data);
    check::tell((byte & 0xFF) == 0xFF ? check::unwritten : check::written, begin, bytes);
    return true;
  });
  return cudaSuccess;
}

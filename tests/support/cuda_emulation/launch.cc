// Launches of kernels, and the rest of the runtime that is neither memory nor streams.

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/support/cuda_emulation/block.h"
#include "tests/support/cuda_emulation/check.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/cuda_emulation/streams.h"

namespace cuda_emulation {

namespace {

constexpr std::size_t kSharedWithoutAsking = 48 << 10, kMostShared = 232448;
constexpr unsigned kMostThreads = 1024;

struct Process {
  std::map<const void*, std::size_t> allowed_shared;  // by kernel
  std::uint64_t random = 1;
  int device = 0;
};

void seed(Process& p, std::uint64_t value) {
  p.random = (value + 1) * 0x9e3779b97f4a7c15ull;
  if (p.random == 0) p.random = 1;
}

Process& process() {
  static Process* const the_process = [] {
    auto* const made = new Process;
    const char* const text = std::getenv("JAMBA_EMULATION_SEED");
    seed(*made, text == nullptr ? 0 : std::strtoull(text, nullptr, 10));
    return made;
  }();
  return *the_process;
}

}  // namespace

void set_seed(std::uint64_t value) { seed(process(), value); }

std::uint32_t random_below(std::uint32_t n) {
  std::uint64_t& x = process().random;  // xorshift64
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return static_cast<std::uint32_t>(((x >> 32) * n) >> 32);
}

namespace {

/// "function at file:line" of an address of this program, on standard error, as its debug
/// information has it.
void print_place(const char* what, const void* address) {
  Dl_info info{};
  if (address == nullptr || dladdr(address, &info) == 0) return;
  std::fprintf(stderr, "  %s ", what);
  std::fflush(stderr);
  const auto offset = static_cast<const char*>(address) - static_cast<const char*>(info.dli_fbase);
  char command[256];
  std::snprintf(command, sizeof command, "addr2line -Cfpie /proc/%d/exe %#tx >&2", getpid(),
                offset);
  static_cast<void>(!std::system(command));
}

}  // namespace

void fail(const std::string& message, const void* code_address) {
  std::fflush(stdout);
  const std::string place = where();
  std::fprintf(stderr, "cuda emulation: %s%s%s\n", message.c_str(), place.empty() ? "" : "; ",
               place.c_str());
  print_place("by", code_address);
  if (running.in_kernel) print_place("in the kernel", kernel_address());
  std::fflush(stderr);
  std::_Exit(kFailure);
}

cudaError_t launch(const cudaLaunchConfig_t& config, const KernelCall& call) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const std::size_t shared = config.dynamicSmemBytes,
                    threads = static_cast<std::size_t>(block.x) * block.y * block.z;
  if (config.numAttrs != 0) fail("launch attributes");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) fail("launch of an empty grid");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) fail("launch of too large a grid");
  if (threads == 0 || threads > kMostThreads)
    fail("launch of blocks of " + std::to_string(threads) + " threads");
  const auto allowed = process().allowed_shared.find(call.kernel);
  const std::size_t limit =
      allowed == process().allowed_shared.end() ? kSharedWithoutAsking : allowed->second;
  if (shared > limit)
    fail("launch with " + std::to_string(shared) + " bytes of dynamic shared memory; " +
         std::to_string(limit) + " are allowed (cudaFuncSetAttribute)");
  issue(config.stream, "kernel", [=] {
    const DeviceAccess access;
    run_grid(call, grid, block, shared);
    return true;
  });
  return cudaSuccess;
}

}  // namespace cuda_emulation

using namespace cuda_emulation;

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
    fail("cudaFuncSetAttribute: this one");
  if (value < 0 || static_cast<std::size_t>(value) > kMostShared) return cudaErrorInvalidValue;
  process().allowed_shared[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNotReady:
      return "device not ready";
    default:
      return "an error that the emulation does not make";
  }
}
const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  static bool said = false;
  if (!said && std::getenv("JAMBA_EMULATION_QUIET") == nullptr)
    std::fprintf(stderr, "cuda emulation: CUDA code runs on the CPU, for tests only\n");
  said = true;
  *count = num_devices();
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= num_devices()) return cudaErrorInvalidDevice;
  process().device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = process().device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= num_devices()) return cudaErrorInvalidDevice;
  *p = {};
  std::snprintf(p->name, sizeof p->name, "emulated on the CPU");
  p->totalGlobalMem = bytes_in_all();
  p->sharedMemPerBlockOptin = kMostShared;
  p->major = 9;
  p->multiProcessorCount = 4;  // few: what is split over multiprocessors stays small in tests
  p->l2CacheSize = 50 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  drain_all();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
  *lowest = 0;
  *highest = -5;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = device != peer ? 1 : 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = bytes_in_all();
  *free = *total - bytes_allocated(process().device);
  return cudaSuccess;
}

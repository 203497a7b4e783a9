#include "tests/support/cuda_emulation/device_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <vector>

#include "tests/support/cuda_emulation/check.h"
#include "tests/support/cuda_emulation/emulation.h"

namespace cuda_emulation {

namespace {

constexpr std::size_t kReserved = std::size_t{64} << 30;  // addresses of one device
constexpr std::size_t kDeviceBytes = std::size_t{16} << 30;
constexpr std::size_t kAlignment = 256, kGap = 256;
constexpr std::size_t kPage = 4096;

int setting(const char* name, int otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

struct Region {
  char* base = nullptr;
  std::size_t used = 0;                      // from base on, ever
  std::size_t live = 0;                      // bytes
  std::map<char*, std::size_t> allocations;  // by begin; bytes asked for
  std::map<char*, std::size_t> holes;        // below base + used
};

struct Memory {
  std::vector<Region> regions;
  int open = 0;   // DeviceAccess objects alive
  int holds = 0;  // HoldOpen objects alive
  bool is_open = false;
  std::recursive_mutex mutex;
};

extern "C" void on_fault(int, siginfo_t* info, void*);
extern "C" void on_trap(int);

Memory& memory() {
  // Never destroyed: programs free device memory in their own static destructors.
  static Memory* const all = [] {
    auto* const made = new Memory;
    made->regions.resize(static_cast<std::size_t>(num_devices()));
    for (Region& region : made->regions) {
      void* const base =
          mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (base == MAP_FAILED) fail("no addresses for device memory");
      region.base = static_cast<char*>(base);
    }
    static std::array<char, 64 << 10> stack;
    const stack_t alternative{.ss_sp = stack.data(), .ss_flags = 0, .ss_size = stack.size()};
    sigaltstack(&alternative, nullptr);
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    action = {};
    action.sa_handler = on_trap;
    sigaction(SIGILL, &action, nullptr);
    return made;
  }();
  return *all;
}

void protect(int access) {
  for (const Region& region : memory().regions) {
    if (region.used > 0) mprotect(region.base, region.used, access);
  }
}

void close_if_unused() {
  Memory& m = memory();
  if (!m.is_open || m.open > 0 || m.holds > 0) return;
  protect(PROT_NONE);
  m.is_open = false;
}

/// Of a device that `address` belongs to.
Region* region_of(const void* address) {
  for (Region& region : memory().regions) {
    if (address >= region.base && address < region.base + kReserved) return &region;
  }
  return nullptr;
}

extern "C" void on_fault(int, siginfo_t* info, void*) {
  const Region* const region = region_of(info->si_addr);
  char text[256];
  const bool open = memory().open > 0;
  if (region == nullptr) {
    std::snprintf(
        text, sizeof text, "invalid memory access at %p%s\n", info->si_addr,
        open ? " in a kernel: a wild pointer, or the stack of a CUDA thread is full" : "");
  } else if (open) {
    std::snprintf(text, sizeof text,
                  "a kernel touched device memory that was never allocated, %p\n", info->si_addr);
  } else {
    const Allocation a = find_allocation(info->si_addr);
    std::snprintf(
        text, sizeof text,
        "host code touched device memory: byte %zd of an allocation of %zu bytes\n",
        a.begin == nullptr ? std::ptrdiff_t{-1} : static_cast<const char*>(info->si_addr) - a.begin,
        a.bytes);
  }
  const char* const head = "cuda emulation: ";
  static_cast<void>(!write(STDERR_FILENO, head, std::strlen(head)));
  static_cast<void>(!write(STDERR_FILENO, text, std::strlen(text)));
  _exit(kFailure);
}

/// What the compiler's own checks of kernels end in (UBSan).
extern "C" void on_trap(int) { fail("an index outside its array, or a misaligned access"); }

/// A hole of at least so many bytes, or new memory at the end.
char* take(Region& region, std::size_t size) {
  for (auto it = region.holes.begin(); it != region.holes.end(); ++it) {
    if (it->second < size) continue;
    char* const begin = it->first;
    const std::size_t left = it->second - size;
    region.holes.erase(it);
    if (left > 0) region.holes.emplace(begin + size, left);
    return begin;
  }
  char* const begin = region.base + region.used;
  region.used += (size + kPage - 1) / kPage * kPage;
  const std::size_t left = static_cast<std::size_t>(region.base + region.used - begin) - size;
  if (left > 0) region.holes.emplace(begin + size, left);
  mprotect(begin, static_cast<std::size_t>(region.base + region.used - begin),
           memory().is_open ? PROT_READ | PROT_WRITE : PROT_NONE);
  return begin;
}

void put_back(Region& region, char* begin, std::size_t size) {
  auto hole = region.holes.emplace(begin, size).first;
  const auto next = std::next(hole);
  if (next != region.holes.end() && hole->first + hole->second == next->first) {
    hole->second += next->second;
    region.holes.erase(next);
  }
  if (hole == region.holes.begin()) return;
  const auto previous = std::prev(hole);
  if (previous->first + previous->second == hole->first) {
    previous->second += hole->second;
    region.holes.erase(hole);
  }
}

std::size_t size_of(std::size_t bytes) {
  return (bytes + kGap + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

int num_devices() {
  static const int count = setting("JAMBA_EMULATED_DEVICES", 1);
  return count;
}

std::size_t bytes_in_all() { return kDeviceBytes; }

std::size_t bytes_allocated(int device) {
  return memory().regions[static_cast<std::size_t>(device)].live;
}

void* allocate(int device, std::size_t bytes) {
  const std::scoped_lock lock(memory().mutex);
  Region& region = memory().regions[static_cast<std::size_t>(device)];
  if (region.live + bytes > kDeviceBytes) return nullptr;
  char* const begin = take(region, size_of(bytes));
  region.allocations.emplace(begin, bytes);
  region.live += bytes;
  {
    const DeviceAccess access;
    std::memset(begin, 0xFF, size_of(bytes));
  }
  check::tell(check::allocated, begin, bytes);
  return begin;
}

void release(void* data) {
  const std::scoped_lock lock(memory().mutex);
  Region* const region = region_of(data);
  const auto it = region == nullptr ? std::map<char*, std::size_t>::iterator{}
                                    : region->allocations.find(static_cast<char*>(data));
  if (region == nullptr || it == region->allocations.end())
    fail("cudaFree of an address that is no live allocation: freed before, or not by cudaMalloc");
  check::tell(check::freed, static_cast<const char*>(data));
  region->live -= it->second;
  {
    const DeviceAccess access;  // what still reads it shall see that
    std::memset(data, 0xFF, it->second);
  }
  put_back(*region, it->first, size_of(it->second));
  region->allocations.erase(it);
}

Allocation find_allocation(const void* address) {
  Region* const region = region_of(address);
  if (region == nullptr) return {};
  auto it = region->allocations.upper_bound(const_cast<char*>(static_cast<const char*>(address)));
  if (it == region->allocations.begin()) return {};
  --it;
  if (static_cast<const char*>(address) >= it->first + it->second) return {};
  return {it->first, it->second, static_cast<int>(region - memory().regions.data())};
}

bool is_device_address(const void* data) { return region_of(data) != nullptr; }

void expect_device_range(const void* data, std::size_t bytes, const char* what) {
  if (bytes == 0) return;
  const Allocation a = find_allocation(data);
  if (a.begin == nullptr)
    fail(std::string(what) + (is_device_address(data) ? ": device memory that is not allocated"
                                                      : ": host memory, expected a device's"));
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(data) - a.begin);
  if (bytes > a.bytes - offset)
    fail(std::string(what) + ": " + std::to_string(bytes) + " bytes from byte " +
         std::to_string(offset) + " of an allocation of " + std::to_string(a.bytes));
}

void mark_written(const void* data, std::size_t bytes) {
  check::tell(check::written, static_cast<const char*>(data), bytes);
}

void expect_written(const void* data, std::size_t bytes, const char* what) {
  check::tell(check::expect_written, static_cast<const char*>(data), bytes, what);
}

DeviceAccess::DeviceAccess() {
  memory().mutex.lock();
  ++memory().open;
  if (memory().is_open) return;
  protect(PROT_READ | PROT_WRITE);
  memory().is_open = true;
}

DeviceAccess::~DeviceAccess() {
  --memory().open;
  close_if_unused();
  memory().mutex.unlock();
}

HoldOpen::HoldOpen() { ++memory().holds; }

HoldOpen::~HoldOpen() {
  --memory().holds;
  close_if_unused();
}

}  // namespace cuda_emulation

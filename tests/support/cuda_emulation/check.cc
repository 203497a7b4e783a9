// Checks of every memory access of kernels. They are compiled with -fsanitize=thread, which calls
// the functions below at each access; ThreadSanitizer's own runtime is not there.

#include "tests/support/cuda_emulation/check.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "tests/support/cuda_emulation/block.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/cuda_emulation/emulation.h"

extern "C" {
extern char __start_cuda_emulation_shared[] __attribute__((weak));
extern char __stop_cuda_emulation_shared[] __attribute__((weak));
extern char __executable_start[], _end[];  // of this program
}

namespace cuda_emulation::check {

namespace {

/// Who touched a byte, and when.
struct Access {
  std::uint32_t run = 0;  // of kernels for global memory, of blocks for shared memory; 0: none
  std::uint32_t block = 0;
  std::uint16_t thread = 0;
  bool atomic = false;
  std::uint32_t barriers = 0, warp_syncs = 0;
};

/// Readers since the last point where all of them are known to have finished, beside the last one.
enum class Others : std::uint8_t { none, of_warp, of_block, of_grid };

struct Shadow {
  Access write, read;
  Others others = Others::none;
  std::uint32_t written_in = 0;  // kAlways, or the run in which shared memory was written
};
constexpr std::uint32_t kAlways = 0xffffffffu;

struct FreeShadow {
  void operator()(Shadow* p) const { std::free(p); }
};
/// All zero, and no memory before it is used.
std::unique_ptr<Shadow[], FreeShadow> make_shadow(std::size_t bytes) {
  static_assert(std::is_trivially_destructible_v<Shadow>);
  return std::unique_ptr<Shadow[], FreeShadow>(
      static_cast<Shadow*>(std::calloc(bytes + 1, sizeof(Shadow))));
}

struct Tracked {
  std::size_t bytes = 0;
  std::unique_ptr<Shadow[], FreeShadow> shadow;
};

struct State {
  std::map<const char*, Tracked> global;
  std::map<const char*, Tracked>::iterator last = global.end();  // found last
  std::unique_ptr<Shadow[], FreeShadow> static_shared, dynamic_shared;
  const char* dynamic_begin = nullptr;
  std::size_t dynamic_bytes = 0, dynamic_capacity = 0;
  const char* arguments = nullptr;
  std::size_t argument_bytes = 0;
  std::uint32_t block_run = 0;
};

State& state() {
  static State* const the_state = new State;  // never destroyed, as device memory
  return *the_state;
}

/// The shadow of a byte of global memory; null if it is not allocated. left: bytes from there on.
Shadow* global_shadow(const char* at, std::size_t& left) {
  State& s = state();
  auto it = s.last;
  if (it == s.global.end() || at < it->first || at >= it->first + it->second.bytes) {
    it = s.global.upper_bound(at);
    if (it == s.global.begin()) return nullptr;
    --it;
    if (at >= it->first + it->second.bytes) return nullptr;
    s.last = it;
  }
  left = static_cast<std::size_t>(it->first + it->second.bytes - at);
  return it->second.shadow.get() + (at - it->first);
}

Access me(bool shared, bool atomic) {
  return {shared ? state().block_run : running.launch,
          running.block,
          static_cast<std::uint16_t>(running.thread),
          atomic,
          running.barriers,
          running.warp_syncs[running.thread / 32]};
}

bool same_thread(const Access& a, const Access& b) {
  return a.block == b.block && a.thread == b.thread;
}
bool same_warp(const Access& a, const Access& b) {
  return a.block == b.block && a.thread / 32 == b.thread / 32;
}

/// Whether nothing orders an earlier access before this one.
bool concurrent(const Access& before, const Access& now) {
  if (before.run != now.run || same_thread(before, now)) return false;
  if (before.block != now.block) return true;
  if (before.barriers != now.barriers) return false;
  return !same_warp(before, now) || before.warp_syncs == now.warp_syncs;
}

bool races_with_readers(const Shadow& s, const Access& now) {
  if (s.read.run != now.run) return false;
  if (s.others == Others::of_grid || concurrent(s.read, now)) return true;
  if (s.read.block != now.block || s.read.barriers != now.barriers) return false;
  return s.others == Others::of_block ||
         (s.others == Others::of_warp && s.read.warp_syncs == now.warp_syncs);
}

void add_reader(Shadow& s, const Access& now) {
  const Access& before = s.read;
  if (before.run != now.run) {
    s.others = Others::none;
  } else if (before.block != now.block) {
    s.others = Others::of_grid;
  } else if (s.others != Others::of_grid) {
    if (before.barriers != now.barriers) {
      s.others = Others::none;
    } else if (!same_warp(before, now)) {
      s.others = Others::of_block;
    } else if (s.others != Others::of_block) {
      const bool synced = before.warp_syncs != now.warp_syncs;
      if (synced) s.others = Others::none;
      if (!synced && !same_thread(before, now)) s.others = Others::of_warp;
    }
  }
  s.read = now;
}

std::string describe(const Access& a) {
  return "block " + std::to_string(a.block) + " thread " + std::to_string(a.thread);
}

void touch(Shadow* s, std::size_t bytes, bool write, const Access& now, bool shared,
           const void* pc) {
  const std::uint32_t written = shared ? now.run : kAlways;
  for (std::size_t i = 0; i < bytes; ++i, ++s) {
    if ((!write || now.atomic) && s->written_in != written) {
      fail(shared ? "read of shared memory that nobody has written"
                  : "read of device memory that nobody has written",
           pc);
    }
    if (concurrent(s->write, now) && !(now.atomic && s->write.atomic)) {
      fail(std::string("race: ") + (write ? "write" : "read") + " after a write by " +
               describe(s->write) + " with nothing between them",
           pc);
    }
    if (!write) {
      add_reader(*s, now);
      continue;
    }
    if (races_with_readers(*s, now)) {
      fail("race: write after a read, the last by " + describe(s->read) +
               ", with nothing between them",
           pc);
    }
    s->write = now;
    s->written_in = written;
  }
}

bool within(const char* at, std::size_t bytes, const char* begin, const char* end) {
  return at >= begin && at + bytes <= end;
}

/// One access of a kernel.
void access(const void* address, std::size_t bytes, bool write, bool atomic, const void* pc) {
  if (!running.in_kernel || bytes == 0) return;
  constexpr std::size_t kStackBytes = 128 << 10;
  const auto* const at = static_cast<const char*>(address);
  if (at >= running.stack && at < running.stack + kStackBytes) return;
  State& s = state();
  const std::string size = std::to_string(bytes);
  if (bytes <= 16 && (bytes & (bytes - 1)) == 0 &&
      reinterpret_cast<std::uintptr_t>(at) % bytes != 0)
    fail("misaligned access of " + size + " bytes", pc);
  if (is_device_address(address)) {
    std::size_t left = 0;
    Shadow* const shadow = global_shadow(at, left);
    if (shadow == nullptr)
      fail("access to device memory outside every allocation (" + size + " bytes)", pc);
    if (left < bytes)
      fail("access of " + size + " bytes, " + std::to_string(left) + " before an allocation's end",
           pc);
    return touch(shadow, bytes, write, me(false, atomic), false, pc);
  }
  if (within(at, bytes, __start_cuda_emulation_shared, __stop_cuda_emulation_shared)) {
    return touch(s.static_shared.get() + (at - __start_cuda_emulation_shared), bytes, write,
                 me(true, atomic), true, pc);
  }
  constexpr std::ptrdiff_t kNear = 4096;
  if (s.dynamic_begin != nullptr && at >= s.dynamic_begin - kNear &&
      at < s.dynamic_begin + s.dynamic_bytes + kNear) {
    if (!within(at, bytes, s.dynamic_begin, s.dynamic_begin + s.dynamic_bytes)) {
      fail("access to byte " + std::to_string(at - s.dynamic_begin) + " of " +
               std::to_string(s.dynamic_bytes) + " of dynamic shared memory",
           pc);
    }
    return touch(s.dynamic_shared.get() + (at - s.dynamic_begin), bytes, write, me(true, atomic),
                 true, pc);
  }
  if (!write && within(at, bytes, s.arguments, s.arguments + s.argument_bytes)) return;
  if (!write && within(at, bytes, __executable_start, _end)) return;  // threadIdx, constants
  fail(std::string(write ? "write to" : "read of") +
           " memory of the host: is a pointer not one of the device's?",
       pc);
}

}  // namespace

void allocated(const char* begin, std::size_t bytes) {
  State& s = state();
  s.global[begin] = {bytes, make_shadow(bytes)};
  s.last = s.global.end();
}

void freed(const char* begin) {
  State& s = state();
  s.global.erase(begin);
  s.last = s.global.end();
}

namespace {

void set_written(const char* begin, std::size_t bytes, std::uint32_t value) {
  std::size_t left = 0;
  Shadow* const shadow = global_shadow(begin, left);
  if (shadow == nullptr || left < bytes) fail("marks memory that is not allocated");
  for (std::size_t i = 0; i < bytes; ++i) shadow[i].written_in = value;
}

}  // namespace

void written(const char* begin, std::size_t bytes) { set_written(begin, bytes, kAlways); }
void unwritten(const char* begin, std::size_t bytes) { set_written(begin, bytes, 0); }

void copied(const char* to, const char* from, std::size_t bytes) {
  std::size_t left = 0;
  Shadow* const target = global_shadow(to, left);
  const Shadow* const source = global_shadow(from, left);
  for (std::size_t i = 0; i < bytes; ++i) target[i].written_in = source[i].written_in;
}

void expect_written(const char* begin, std::size_t bytes, const char* what) {
  std::size_t left = 0;
  const Shadow* const shadow = global_shadow(begin, left);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (shadow[i].written_in != kAlways)
      fail(std::string(what) + ": nobody has written byte " + std::to_string(i));
  }
}

void kernel_begins(const void* arguments, std::size_t bytes) {
  state().arguments = static_cast<const char*>(arguments);
  state().argument_bytes = bytes;
}

void block_begins(const char* dynamic_shared, std::size_t bytes) {
  State& s = state();
  ++s.block_run;  // what the shadows hold is of an earlier run, and counts for nothing
  s.dynamic_begin = dynamic_shared;
  s.dynamic_bytes = bytes;
  if (bytes > s.dynamic_capacity) {
    s.dynamic_shared = make_shadow(bytes);
    s.dynamic_capacity = bytes;
  }
  if (s.static_shared == nullptr) {
    s.static_shared = make_shadow(
        static_cast<std::size_t>(__stop_cuda_emulation_shared - __start_cuda_emulation_shared));
  }
}

void atomic_access(const char* at, std::size_t bytes) {
  access(at, bytes, true, true, __builtin_return_address(0));
}

}  // namespace cuda_emulation::check

using cuda_emulation::check::access;

#define HERE __builtin_return_address(0)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define ACCESSES(N)                                                            \
  void __tsan_read##N(void* p) { access(p, N, false, false, HERE); }           \
  void __tsan_write##N(void* p) { access(p, N, true, false, HERE); }           \
  void __tsan_unaligned_read##N(void* p) { access(p, N, false, false, HERE); } \
  void __tsan_unaligned_write##N(void* p) { access(p, N, true, false, HERE); } \
  void __tsan_read_write##N(void* p) {                                         \
    access(p, N, false, false, HERE);                                          \
    access(p, N, true, false, HERE);                                           \
  }                                                                            \
  void __tsan_unaligned_read_write##N(void* p) { __tsan_read_write##N(p); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void* p, std::size_t n) { access(p, n, false, false, HERE); }
void __tsan_write_range(void* p, std::size_t n) { access(p, n, true, false, HERE); }
void* __tsan_memcpy(void* to, const void* from, std::size_t n) {
  access(from, n, false, false, HERE);
  access(to, n, true, false, HERE);
  return std::memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, std::size_t n) {
  access(from, n, false, false, HERE);
  access(to, n, true, false, HERE);
  return std::memmove(to, from, n);
}
void* __tsan_memset(void* to, int byte, std::size_t n) {
  access(to, n, true, false, HERE);
  return std::memset(to, byte, n);
}

// Atomics of host code in the same files: reference counts, guards of static variables. Kernels'
// atomics are functions of the emulation.
std::uint8_t __tsan_atomic8_load(const volatile std::uint8_t* p, int) {
  return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
std::uint32_t __tsan_atomic32_fetch_add(volatile std::uint32_t* p, std::uint32_t value, int) {
  return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}

}  // extern "C"

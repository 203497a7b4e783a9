#include "tests/support/cuda_emulation/block.h"

#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "tests/support/cuda_emulation/check.h"
#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/cuda_emulation/fibers.h"
#include "tests/support/cuda_emulation/include/cuda_emulation_device_api.h"

// The bounds of the section that static shared memory lies in; the linker makes them.
extern "C" {
extern char __start_cuda_emulation_shared[] __attribute__((weak));
extern char __stop_cuda_emulation_shared[] __attribute__((weak));
}

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_emulation {

Running running;

namespace {

constexpr unsigned kLanes = 32, kMostThreads = 1024;
constexpr std::size_t kMostDynamicShared = 232448;  // 227 KiB

enum class State : std::uint8_t { ready, at_barrier, in_warp, exited };

struct Lane {
  uint3 index;
  Fiber fiber;
  State state = State::exited;
  Site site{};  // where it waits
  std::uint64_t value = 0, result = 0;
  int operand = 0, width = 0;
};

/// Lanes of a warp that wait for each other.
struct Meeting {
  unsigned mask, arrived;
  WarpOp op;
  Site site;
};

struct Block {
  std::array<Lane, kMostThreads> lanes;
  Fiber host;
  unsigned num_threads = 0, num_live = 0, num_at_barrier = 0;
  Site barrier{};
  std::vector<unsigned> ready;
  std::array<std::vector<Meeting>, kMostThreads / kLanes> meetings;
  char* shared_end = nullptr;
  char* dynamic_shared = nullptr;
  const KernelCall* call = nullptr;
};

Block* make_block() {
  auto* const made = new Block;
  // The end of dynamic shared memory is where memory ends: reading past it faults.
  constexpr std::size_t kPage = 4096;
  const std::size_t bytes = (kMostDynamicShared + kPage - 1) / kPage * kPage;
  void* const memory =
      mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("no memory for shared memory");
  made->shared_end = static_cast<char*>(memory) + bytes;
  mprotect(made->shared_end, kPage, PROT_NONE);
  return made;
}

Block* the_block = nullptr;

Block& block() { return *the_block; }

bool same(const Site& a, const Site& b) {
  return a.line == b.line && a.column == b.column &&
         (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string describe(const Site& site) {
  return std::string(site.file) + ":" + std::to_string(site.line) + ":" +
         std::to_string(site.column);
}

Lane& running_lane() { return block().lanes[running.thread]; }

void make_ready(unsigned thread) {
  block().lanes[thread].state = State::ready;
  block().ready.push_back(thread);
}

/// Gives the processor to a random thread that can run; to the host if none is left.
void go_on(Fiber& from) {
  Block& b = block();
  if (b.ready.empty()) {
    if (b.num_live > 0) {
      std::string text = "no thread can go on:";
      int shown = 0;
      for (unsigned i = 0; i < b.num_threads && shown < 4; ++i) {
        if (b.lanes[i].state != State::at_barrier && b.lanes[i].state != State::in_warp) continue;
        text += " thread " + std::to_string(i) + " waits at " + describe(b.lanes[i].site) + ";";
        ++shown;
      }
      fail(text);
    }
    switch_fibers(from, b.host);
    return;
  }
  std::swap(b.ready[random_below(static_cast<std::uint32_t>(b.ready.size()))], b.ready.back());
  running.thread = b.ready.back();
  b.ready.pop_back();
  Lane& next = running_lane();
  threadIdx = next.index;
  running.stack = next.fiber.stack();
  if (&next.fiber != &from) switch_fibers(from, next.fiber);
}

void expect_nobody_waits() {
  const Block& b = block();
  const unsigned warp = running.thread / kLanes, bit = 1u << running.thread % kLanes;
  for (const Meeting& m : b.meetings[warp]) {
    if ((m.mask & bit) != 0)
      fail("the thread ends, and others wait for it in their mask at " + describe(m.site));
  }
  if (b.num_at_barrier > 0)
    fail("the thread ends, and others wait for it in __syncthreads at " + describe(b.barrier));
}

void thread_main() {
  block().call->run(block().call->arguments.get());
  Lane& lane = running_lane();
  expect_nobody_waits();
  lane.state = State::exited;
  --block().num_live;
  go_on(lane.fiber);
  std::abort();  // nobody comes back to it
}

void begin_block(unsigned number, dim3 grid, dim3 dim, std::size_t shared_bytes) {
  Block& b = block();
  running.block = number;
  running.barriers = 0;
  for (std::uint32_t& count : running.warp_syncs) count = 0;
  std::memset(b.dynamic_shared, 0xFF, static_cast<std::size_t>(b.shared_end - b.dynamic_shared));
  if (__start_cuda_emulation_shared != nullptr) {
    std::memset(
        __start_cuda_emulation_shared, 0xFF,
        static_cast<std::size_t>(__stop_cuda_emulation_shared - __start_cuda_emulation_shared));
  }
  check::tell(check::block_begins, static_cast<const char*>(b.dynamic_shared), shared_bytes);
  blockIdx = {number % grid.x, number / grid.x % grid.y, number / (grid.x * grid.y)};
  blockDim = dim;
  gridDim = grid;
  b.num_live = b.num_threads;
  b.num_at_barrier = 0;
  b.ready.clear();
  for (unsigned i = 0; i < b.num_threads; ++i) {
    Lane& lane = b.lanes[i];
    lane.index = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
    lane.fiber.start(thread_main);
    make_ready(i);
  }
}

}  // namespace

void run_grid(const KernelCall& call, dim3 grid, dim3 dim, std::size_t shared_bytes) {
  if (the_block == nullptr) the_block = make_block();
  Block& b = block();
  b.call = &call;
  b.num_threads = dim.x * dim.y * dim.z;
  constexpr std::size_t kAlignment = 16;
  b.dynamic_shared = b.shared_end - (shared_bytes + kAlignment - 1) / kAlignment * kAlignment;
  ++running.launch;
  check::tell(check::kernel_begins, call.arguments.get(), call.argument_bytes);
  std::vector<unsigned> order(static_cast<std::size_t>(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random_below(static_cast<std::uint32_t>(i))]);
  running.in_kernel = true;
  for (const unsigned number : order) {
    begin_block(number, grid, dim, shared_bytes);
    go_on(b.host);
  }
  running.in_kernel = false;
}

void expect_aligned(const void* address, std::size_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0)
    fail("misaligned access: the address is no multiple of " + std::to_string(alignment));
}

void* dynamic_shared() { return block().dynamic_shared; }

void sync_threads(Site site) {
  Block& b = block();
  Lane& lane = running_lane();
  if (b.num_live < b.num_threads)
    fail("__syncthreads at " + describe(site) + " after threads of the block have ended");
  if (b.num_at_barrier == 0) {
    b.barrier = site;
  } else if (!same(b.barrier, site)) {
    fail("__syncthreads at " + describe(site) + ", but others wait in the one at " +
         describe(b.barrier));
  }
  lane.site = site;
  lane.state = State::at_barrier;
  if (++b.num_at_barrier == b.num_live) {
    ++running.barriers;
    b.num_at_barrier = 0;
    for (unsigned i = 0; i < b.num_threads; ++i) {
      if (b.lanes[i].state == State::at_barrier) make_ready(i);
    }
  }
  go_on(lane.fiber);
}

namespace {

/// The lane that a shuffle of `lane` reads.
unsigned source_of(WarpOp op, unsigned lane, const Lane& asking) {
  const auto width = static_cast<unsigned>(asking.width);
  const unsigned first = lane / width * width;
  const auto operand = static_cast<unsigned>(asking.operand);
  switch (op) {
    case WarpOp::shuffle:
      return first + operand % width;
    case WarpOp::shuffle_up:
      return lane - first < operand ? lane : lane - operand;
    case WarpOp::shuffle_down:
      return lane + operand >= first + width ? lane : lane + operand;
    default: {
      const unsigned source = lane ^ operand;
      return source >= first + width ? lane : source;
    }
  }
}

void finish(const Meeting& m, unsigned first_thread) {
  Block& b = block();
  constexpr std::uint64_t kUndefined = 0xfff8deadffc0deadull;  // NaN in either half
  std::uint64_t ballot = 0;
  for (unsigned i = 0; i < kLanes; ++i) {
    if ((m.mask >> i & 1) != 0 && b.lanes[first_thread + i].value != 0) ballot |= 1u << i;
  }
  for (unsigned i = 0; i < kLanes; ++i) {
    if ((m.mask >> i & 1) == 0) continue;
    Lane& lane = b.lanes[first_thread + i];
    if (m.op == WarpOp::ballot) {
      lane.result = ballot;
    } else if (m.op != WarpOp::sync) {
      const unsigned source = source_of(m.op, i, lane);
      lane.result = (m.mask >> source & 1) != 0 ? b.lanes[first_thread + source].value : kUndefined;
    }
  }
  if (m.op == WarpOp::sync && m.mask == 0xffffffffu) ++running.warp_syncs[first_thread / kLanes];
  for (unsigned i = 0; i < kLanes; ++i) {
    if ((m.mask >> i & 1) != 0) make_ready(first_thread + i);
  }
}

}  // namespace

std::uint64_t meet(WarpOp op, unsigned mask, std::uint64_t value, int operand, int width,
                   Site site) {
  Block& b = block();
  Lane& lane = running_lane();
  const unsigned warp = running.thread / kLanes, first = warp * kLanes;
  const unsigned bit = 1u << running.thread % kLanes;
  const unsigned lanes = b.num_threads - first;  // block sizes are multiples of a warp
  if (lanes < kLanes) fail("a block whose last warp is not full");
  if ((mask & bit) == 0) fail("the mask at " + describe(site) + " does not name the lane itself");
  lane.site = site;
  lane.value = value;
  lane.operand = operand;
  lane.width = width;
  std::vector<Meeting>& meetings = b.meetings[warp];
  std::size_t at = 0;
  while (at < meetings.size() && meetings[at].mask != mask) ++at;
  if (at == meetings.size()) {
    for (unsigned i = 0; i < kLanes; ++i) {
      if ((mask >> i & 1) != 0 && b.lanes[first + i].state == State::exited)
        fail("the mask at " + describe(site) + " names lane " + std::to_string(i) +
             ", which has ended");
    }
    meetings.push_back({mask, 0, op, site});
  }
  Meeting& m = meetings[at];
  if (m.op != op || !same(m.site, site))
    fail("lanes of one mask are at different places: " + describe(site) + " and " +
         describe(m.site));
  m.arrived |= bit;
  lane.state = State::in_warp;
  if (m.arrived == mask) {
    const Meeting complete = m;
    meetings.erase(meetings.begin() + static_cast<std::ptrdiff_t>(at));
    finish(complete, first);
  }
  go_on(lane.fiber);
  return lane.result;
}

namespace {

template <class T>
T updated(AtomicOp op, T old, T value) {
  switch (op) {
    case AtomicOp::add:
      return static_cast<T>(old + value);
    case AtomicOp::max:
      return old > value ? old : value;
    case AtomicOp::min:
      return old < value ? old : value;
    case AtomicOp::exchange:
      return value;
    case AtomicOp::bit_or:
      return static_cast<T>(old | value);
  }
  std::abort();
}

template <class T>
T update(AtomicOp op, void* at, T value) {
  check::tell(check::atomic_access, static_cast<const char*>(at), sizeof(T));
  T old;
  std::memcpy(&old, at, sizeof(T));
  const T next = updated(op, old, value);
  std::memcpy(at, &next, sizeof(T));
  return old;
}

}  // namespace

std::uint32_t atomic32(AtomicOp op, void* at, std::uint32_t value, bool is_signed) {
  if (is_signed)
    return static_cast<std::uint32_t>(update(op, at, static_cast<std::int32_t>(value)));
  return update(op, at, value);
}

std::uint64_t atomic64(AtomicOp op, void* at, std::uint64_t value) { return update(op, at, value); }

std::string where() {
  if (!running.in_kernel) return "";
  return "block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
         std::to_string(blockIdx.z) + "), thread " + std::to_string(running.thread);
}

const void* kernel_address() { return block().call->kernel; }

}  // namespace cuda_emulation

#pragma once
// What code of kernels calls in the emulation.

#include <cuda_runtime.h>

#include <cstdint>

// Of the thread that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace cuda_emulation {

/// Where in the source something is called: threads that wait for each other wait at one place.
struct Site {
  const char* file;
  int line, column;
};

void* dynamic_shared();
/// Stops the program unless the address is a multiple of `alignment`.
void expect_aligned(const void* address, std::size_t alignment);
void sync_threads(Site);
enum class WarpOp { sync, shuffle, shuffle_up, shuffle_down, shuffle_xor, ballot };
/// The lanes in `mask` meet; each gives a value and an operand, and gets its result.
std::uint64_t meet(WarpOp, unsigned mask, std::uint64_t value, int operand, int width, Site);

// In the library, which the checks of kernels' memory accesses do not see into.
enum class AtomicOp { add, max, min, exchange, bit_or };
std::uint32_t atomic32(AtomicOp, void* at, std::uint32_t value, bool is_signed);
std::uint64_t atomic64(AtomicOp, void* at, std::uint64_t value);

}  // namespace cuda_emulation

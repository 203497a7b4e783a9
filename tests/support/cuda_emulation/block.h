#pragma once
// The threads of one block, each a fiber, in a random order.

#include <cuda_runtime.h>

#include <string>

namespace cuda_emulation {

/// Runs all blocks of a grid, one after the other in random order.
void run_grid(const KernelCall&, dim3 grid, dim3 block, std::size_t dynamic_shared_bytes);

/// For messages: "block (1, 0, 0), thread 37"; empty while no kernel runs.
std::string where();
/// Of the kernel that runs.
const void* kernel_address();

/// What the checks of memory accesses ask for at each access.
struct Running {
  bool in_kernel = false;
  std::uint32_t block = 0;         // number within the grid
  std::uint32_t thread = 0;        // within the block
  std::uint32_t launch = 0;        // number of the launch
  std::uint32_t barriers = 0;      // that the block has passed
  std::uint32_t warp_syncs[32]{};  // __syncwarp of all lanes, by warp
  const char* stack = nullptr;     // of the running thread
};
extern Running running;

}  // namespace cuda_emulation

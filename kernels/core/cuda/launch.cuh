#pragma once
// The one way to start a kernel, and the choice of how much a thread moves at once.

#include <cstdint>
#include <type_traits>

#include "kernels/core/cuda/check.h"
#include "kernels/core/cuda/device.cuh"
#include "kernels/core/cuda/stream_cuda.h"
#include "kernels/core/errors.h"

namespace jamba::cuda {

/// Blocks along x, which may be 2^31 - 1, and y and z, which may be 65535.
struct Grid {
  Index x = 1, y = 1, z = 1;
};

/// Runs kernel(args...) on a grid of blocks of kThreads threads; not at all if the grid is empty.
/// kThreads is the kernel's __launch_bounds__.
/// Errors: LogicError if the device refuses the launch. What goes wrong later shows at the next
/// synchronisation.
template <int kThreads, class... Params, class... Args>
void launch(Stream& stream, void (*kernel)(Params...), Grid grid, std::size_t shared_bytes,
            Args&&... args) {
  static_assert(kThreads % kWarp == 0 && kThreads >= kWarp && kThreads <= 1024);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  JAMBA_CHECK(grid.x > 0 && grid.x < (Index{1} << 31) && grid.y > 0 && grid.y < 65536 &&
                  grid.z > 0 && grid.z < 65536,
              "grid {} x {} x {}", grid.x, grid.y, grid.z);
  constexpr std::size_t kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking) {
    JAMBA_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                          cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                        static_cast<unsigned>(grid.z));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = native(stream);
  JAMBA_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...));
}

/// Calls f(std::integral_constant<int, P>) with P = N, if a thread can move N consecutive elements
/// of each array at once (load_pack, store_pack), else with 1. `width`: the elements of a row, so
/// that every row starts where the first one allows it. Absent arrays (null) allow anything.
template <int N, class F, class... Ts>
void visit_pack(Index width, F&& f, const Ts*... arrays) {
  const bool aligned =
      width % N == 0 && ((reinterpret_cast<std::uintptr_t>(arrays) % (N * sizeof(Ts)) == 0) && ...);
  if (aligned) {
    f(std::integral_constant<int, N>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

}  // namespace jamba::cuda

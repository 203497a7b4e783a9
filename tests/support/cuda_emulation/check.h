#pragma once
// What the checks of kernels' memory accesses get to know. Weak: programs without the library
// cuda_emulation_check have none of them.

#include <cstddef>

#define CUDA_EMULATION_WEAK __attribute__((weak))

namespace cuda_emulation::check {

CUDA_EMULATION_WEAK void allocated(const char* begin, std::size_t bytes);
CUDA_EMULATION_WEAK void freed(const char* begin);
CUDA_EMULATION_WEAK void written(const char* begin, std::size_t bytes);
CUDA_EMULATION_WEAK void unwritten(const char* begin, std::size_t bytes);
CUDA_EMULATION_WEAK void copied(const char* to, const char* from, std::size_t bytes);
CUDA_EMULATION_WEAK void expect_written(const char* begin, std::size_t bytes, const char* what);
CUDA_EMULATION_WEAK void kernel_begins(const void* arguments, std::size_t bytes);
CUDA_EMULATION_WEAK void block_begins(const char* dynamic_shared, std::size_t bytes);
CUDA_EMULATION_WEAK void atomic_access(const char* at, std::size_t bytes);

/// Calls one of them, if it is there.
template <class Function, class... Args>
void tell(Function* function, Args... args) {
  if (function != nullptr) function(args...);
}

}  // namespace cuda_emulation::check

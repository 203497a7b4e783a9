#pragma once
// Loops over OpenMP threads with a split that does not depend on the number of threads.

#include <algorithm>
#include <cstdint>
#include <exception>

#include "kernels/core/stream.h"

namespace jamba {

/// Calls body(begin, end) for consecutive blocks of `block` indices of [0, n), in parallel.
/// Determinism: the blocks are the same for any thread count, so a body that reduces within its
/// block and writes only its own outputs gives the same bits on 1, 2 or 3 threads.
/// Errors: the body must not throw.
template <class Body>
void parallel_blocks(Stream& stream, std::int64_t n, std::int64_t block, Body&& body) {
  const std::int64_t num_blocks = (n + block - 1) / block;
  if (num_blocks <= 1 || stream.num_threads() == 1) {
    for (std::int64_t b = 0; b < num_blocks; ++b) body(b * block, std::min(n, (b + 1) * block));
    return;
  }
#pragma omp parallel for schedule(static) num_threads(stream.num_threads())
  for (std::int64_t b = 0; b < num_blocks; ++b) body(b * block, std::min(n, (b + 1) * block));
}

}  // namespace jamba

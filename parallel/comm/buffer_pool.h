#pragma once
// Memory that operations in flight borrow.

#include <vector>

#include "kernels/core/memory.h"

namespace jamba {

/// Lends buffers of at least the bytes asked for and keeps those that come back, so that a repeated
/// step allocates nothing.
class BufferPool {
 public:
  Buffer take(std::int64_t bytes);
  void give(Buffer buffer);

 private:
  std::vector<Buffer> free_;
};

}  // namespace jamba

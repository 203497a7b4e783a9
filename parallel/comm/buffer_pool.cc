#include "parallel/comm/buffer_pool.h"

#include <algorithm>
#include <bit>

namespace jamba {

Buffer BufferPool::take(std::int64_t bytes) {
  if (bytes == 0) return {};
  // Powers of two, so that what one operation gave back fits the next of about its size.
  const auto size = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(bytes)));
  const auto found =
      std::ranges::find_if(free_, [&](const Buffer& buffer) { return buffer.bytes() == size; });
  if (found == free_.end()) return Buffer(size, {}, Fill::untouched);
  Buffer buffer = std::move(*found);
  free_.erase(found);
  return buffer;
}

void BufferPool::give(Buffer buffer) {
  if (buffer.bytes() > 0) free_.push_back(std::move(buffer));
}

}  // namespace jamba

#pragma once
// Owners of device memory: Buffer (one allocation) and Arena (many short-lived tensors).

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

/// Every allocation starts on this boundary: a cache line, and the widest vector.
inline constexpr std::int64_t kAlignment = 64;

/// What a fresh allocation holds. Untouched memory takes no physical pages until it is written.
enum class Fill { zeros, untouched };

/// One allocation on a device. Move-only.
/// CUDA: what was issued before it is destroyed may still use it; nobody waits for that.
/// Errors: std::bad_alloc with the size, if the memory is not there.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t bytes, Device device = {}, Fill fill = Fill::zeros);
  /// Memory of the host that CUDA copies from and to while the host goes on; without CUDA, plain
  /// memory. Untouched.
  static Buffer pinned(std::int64_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  void* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  Tensor tensor(DType dtype, std::initializer_list<std::int64_t> dims) const;

 private:
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
  Device device_{};
  bool pinned_ = false;
};

/// The most bytes that Buffers on CUDA devices have held at once in this process. What libraries
/// and the driver take for themselves is not in it.
std::int64_t peak_device_bytes();

/// A stack of tensors: allocate, then release everything above a mark. It grows while it warms up;
/// after a reset() with nothing on it, it holds one block of its high-water size, so that a
/// repeated step allocates nothing.
/// Content of a new tensor is unspecified; with poison on, every byte is 0xFF (NaN as a float).
/// CUDA: memory is handed out again in the order of one stream, the only one that may use it.
class Arena {
 public:
  explicit Arena(Device device = {}) : device_(device) {}

  Tensor allocate(DType dtype, std::initializer_list<std::int64_t> dims);
  Tensor allocate(DType dtype, std::span<const std::int64_t> dims);
  /// Uninitialised bytes on a kAlignment boundary.
  void* allocate_bytes(std::int64_t bytes);

  struct Mark {
    std::size_t block;
    std::int64_t offset;
  };
  Mark mark() const { return {current_, blocks_.empty() ? 0 : blocks_[current_].used}; }
  void release(Mark mark);
  /// Releases everything; joins blocks into one if warming up needed several.
  void reset();

  std::int64_t high_water_bytes() const { return high_water_; }
  /// Number of device allocations so far; constant once warm.
  std::int64_t num_allocations() const { return num_allocations_; }
  /// From now on, new tensors are filled with 0xFF, in the order of this stream.
  void poison_on(Stream& stream) { poison_ = &stream; }

 private:
  struct Block {
    Buffer buffer;
    std::int64_t used = 0;
  };
  std::int64_t used_bytes() const;

  Device device_;
  std::vector<Block> blocks_;
  std::size_t current_ = 0;
  std::int64_t high_water_ = 0;
  std::int64_t num_allocations_ = 0;
  Stream* poison_ = nullptr;
};

/// to = from, byte for byte, between any two devices' memory, in the stream's order.
/// Shapes: the same number of elements.   Dtypes: equal.   Aliasing: none, or all.
/// Host memory that is not pinned has been read, or is filled, on return; pinned memory must live,
/// and stay as it is, until the stream is synchronized.
/// Errors: LogicError if the tensors do not match, or lie on a device that is not the stream's.
void copy(Stream&, Tensor to, Tensor from);

/// Releases what was allocated on an arena during its lifetime.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace jamba

#include "kernels/core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "kernels/core/backend.h"

namespace jamba {

namespace {

void poison(Stream& stream, void* data, std::int64_t bytes) {
  if (stream.device().kind == DeviceKind::cuda) {
    cuda::fill_bytes(stream, data, 0xFF, bytes);
  } else {
    std::memset(data, 0xFF, static_cast<std::size_t>(bytes));
  }
}

std::int64_t round_up(std::int64_t bytes, std::int64_t to) { return (bytes + to - 1) / to * to; }

/// Above this, pages come straight from the kernel, eligible for huge pages.
constexpr std::int64_t kHugePageBytes = std::int64_t{2} << 20;

/// Buffers may come and go in any thread.
std::atomic<std::int64_t> device_bytes{0}, most_device_bytes{0};

void count_device_bytes(std::int64_t change) {
  const std::int64_t now = device_bytes += change;
  std::int64_t most = most_device_bytes;
  while (now > most && !most_device_bytes.compare_exchange_weak(most, now)) {
  }
}

class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::int64_t bytes)
      : message_(fmt::format("cannot allocate {:.1f} MiB", static_cast<double>(bytes) / 1048576)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

}  // namespace

Buffer::Buffer(std::int64_t bytes, Device device, Fill fill) : bytes_(bytes), device_(device) {
  JAMBA_CHECK(bytes >= 0, "negative size {}", bytes);
  if (bytes == 0) return;
  if (device.kind == DeviceKind::cuda) {
    data_ = backend_function(&cuda::allocate, "Buffer")(device.index, bytes, fill);
    if (data_ == nullptr) throw OutOfMemory(bytes);
    count_device_bytes(bytes);
    return;
  }
  const bool huge = bytes >= kHugePageBytes;
  const std::int64_t size = round_up(bytes, huge ? kHugePageBytes : kAlignment);
  data_ = std::aligned_alloc(static_cast<std::size_t>(huge ? kHugePageBytes : kAlignment),
                             static_cast<std::size_t>(size));
  if (data_ == nullptr) throw OutOfMemory(bytes);
  if (huge) madvise(data_, static_cast<std::size_t>(size), MADV_HUGEPAGE);
  if (fill == Fill::zeros) std::memset(data_, 0, static_cast<std::size_t>(bytes));
}

Buffer Buffer::pinned(std::int64_t bytes) {
  if (&cuda::allocate_pinned == nullptr) return Buffer(bytes, {}, Fill::untouched);
  Buffer buffer;
  if (bytes > 0) {
    buffer.data_ = cuda::allocate_pinned(bytes);
    if (buffer.data_ == nullptr) throw OutOfMemory(bytes);
  }
  buffer.bytes_ = bytes;
  buffer.pinned_ = true;
  return buffer;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (pinned_) {
    cuda::release_pinned(data_);
  } else if (device_.kind == DeviceKind::cuda) {
    cuda::release(device_.index, data_);
    count_device_bytes(-bytes_);
  } else {
    std::free(data_);
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      device_(other.device_),
      pinned_(other.pinned_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  std::swap(pinned_, other.pinned_);
  return *this;
}

std::int64_t peak_device_bytes() { return most_device_bytes; }

Tensor Buffer::tensor(DType dtype, std::initializer_list<std::int64_t> dims) const {
  const Tensor t(data_, dtype, dims, device_);
  JAMBA_CHECK(t.bytes() <= bytes_, "{} does not fit {} bytes", t.describe(), bytes_);
  return t;
}

Tensor Arena::allocate(DType dtype, std::initializer_list<std::int64_t> dims) {
  return allocate(dtype, std::span<const std::int64_t>(dims.begin(), dims.size()));
}

Tensor Arena::allocate(DType dtype, std::span<const std::int64_t> dims) {
  std::int64_t bytes = dtype_bytes(dtype);
  for (const std::int64_t d : dims) bytes *= d;
  return Tensor(allocate_bytes(bytes), dtype, dims, device_);
}

void* Arena::allocate_bytes(std::int64_t bytes) {
  JAMBA_CHECK(bytes >= 0, "negative size {}", bytes);
  const std::int64_t size = round_up(std::max<std::int64_t>(bytes, 1), kAlignment);
  while (current_ < blocks_.size() &&
         blocks_[current_].used + size > blocks_[current_].buffer.bytes()) {
    if (current_ + 1 == blocks_.size()) break;
    ++current_;
  }
  if (blocks_.empty() || blocks_[current_].used + size > blocks_[current_].buffer.bytes()) {
    constexpr std::int64_t kMinBlock = std::int64_t{1} << 20;
    blocks_.push_back(
        {Buffer(std::max({size, kMinBlock, high_water_ / 2}), device_, Fill::untouched), 0});
    current_ = blocks_.size() - 1;
    ++num_allocations_;
  }
  Block& block = blocks_[current_];
  char* data = static_cast<char*>(block.buffer.data()) + block.used;
  block.used += size;
  high_water_ = std::max(high_water_, used_bytes());
  if (poison_ != nullptr) poison(*poison_, data, size);
  return data;
}

std::int64_t Arena::used_bytes() const {
  std::int64_t used = 0;
  for (const Block& block : blocks_) used += block.used;
  return used;
}

void Arena::release(Mark mark) {
  if (blocks_.empty()) return;
  for (std::size_t i = mark.block + 1; i < blocks_.size(); ++i) blocks_[i].used = 0;
  blocks_[mark.block].used = mark.offset;
  current_ = mark.block;
}

void Arena::reset() {
  for (Block& block : blocks_) block.used = 0;
  current_ = 0;
  if (blocks_.size() <= 1) return;
  blocks_.clear();
  blocks_.push_back({Buffer(high_water_, device_, Fill::untouched), 0});
  ++num_allocations_;
}

void copy(Stream& stream, Tensor to, Tensor from) {
  JAMBA_CHECK(to.dtype() == from.dtype() && to.numel() == from.numel(), "copy of {} to {}",
              from.describe(), to.describe());
  for (const Tensor& t : {to, from}) {
    JAMBA_CHECK(t.device().kind == DeviceKind::cpu || t.device() == stream.device(),
                "{} lies on another device than the stream's", t.describe());
  }
  if (to.raw() == from.raw() || to.numel() == 0) return;
  if (stream.device().kind == DeviceKind::cuda) {
    cuda::copy_bytes(stream, to.raw(), from.raw(), to.bytes());
  } else {
    std::memcpy(to.raw(), from.raw(), static_cast<std::size_t>(to.bytes()));
  }
}

}  // namespace jamba

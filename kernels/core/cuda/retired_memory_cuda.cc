#include <algorithm>

#include "kernels/core/cuda/retired_memory.h"

namespace jamba::cuda {

RetiredMemory& RetiredMemory::of_process() {
  static auto* const memory = new RetiredMemory;  // outlives every Buffer
  return *memory;
}

void RetiredMemory::add_stream(cudaStream_t stream) {
  const std::scoped_lock lock(mutex_);
  streams_.push_back(stream);
}

void RetiredMemory::remove_stream(cudaStream_t stream) noexcept {
  const std::scoped_lock lock(mutex_);
  std::erase(streams_, stream);
  if (!data_.empty() && idle()) free_locked();
}

void RetiredMemory::retire(void* data) noexcept {
  const std::scoped_lock lock(mutex_);
  data_.push_back(data);
  if (idle()) free_locked();
}

void RetiredMemory::free_if_idle() noexcept {
  const std::scoped_lock lock(mutex_);
  if (!data_.empty() && idle()) free_locked();
}

bool RetiredMemory::free_all() noexcept {
  const std::scoped_lock lock(mutex_);
  return free_locked();
}

bool RetiredMemory::idle() const {
  return std::ranges::all_of(
      streams_, [](cudaStream_t stream) { return cudaStreamQuery(stream) == cudaSuccess; });
}

bool RetiredMemory::free_locked() noexcept {
  const bool some = !data_.empty();
  for (void* const data : data_) static_cast<void>(cudaFree(data));
  data_.clear();
  return some;
}

}  // namespace jamba::cuda

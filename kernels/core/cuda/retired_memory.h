#pragma once
// Device memory that nobody owns any more. Private to the CUDA backend.

#include <cuda_runtime.h>

#include <mutex>
#include <vector>

namespace jamba::cuda {

/// cudaFree waits for everything on the device, messages of other ranks included, which may only
/// come once this rank goes on: a rank that frees with a receive in flight could wait for ever. So
/// memory that streams may still use is kept, and freed when all of the process's streams are seen
/// idle. Threads: any.
class RetiredMemory {
 public:
  static RetiredMemory& of_process();

  void add_stream(cudaStream_t);
  /// Its work must have ended.
  void remove_stream(cudaStream_t) noexcept;
  /// Frees it now or later. Does not wait.
  void retire(void* data) noexcept;
  /// Frees what it can without waiting.
  void free_if_idle() noexcept;
  /// Frees all, and waits for the device if need be. Returns whether there was any.
  bool free_all() noexcept;

 private:
  bool idle() const;
  bool free_locked() noexcept;

  std::mutex mutex_;
  std::vector<cudaStream_t> streams_;
  std::vector<void*> data_;
};

}  // namespace jamba::cuda

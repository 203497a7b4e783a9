#pragma once
// An ordered queue of operations on one device, and the counters of what ran on it.

#include <memory>

#include "kernels/core/device.h"
#include "kernels/core/profile.h"

namespace jamba {

class Stream;

/// What a backend keeps between operations (workspaces, handles, compiled primitives). A stream
/// owns it, so it lives and dies with the stream and is used by one operation at a time.
class BackendState {
 public:
  virtual ~BackendState() = default;
};

/// Operations issued to one Stream run in order. On the CPU they have finished when the call
/// returns; on CUDA, after synchronize().
/// Threads: a CPU stream runs operations on num_threads() OpenMP threads. It belongs to the thread
/// that made it (OpenMP's thread count is a property of the calling thread).
class Stream {
 public:
  /// num_threads <= 0 takes OpenMP's default for this thread.
  static Stream cpu(int num_threads = 0);

  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Stream(Stream&&) = default;
  Stream& operator=(Stream&&) = default;

  Device device() const { return device_; }
  int num_threads() const { return num_threads_; }
  void synchronize() {}
  Profile& profile() { return profile_; }

  /// The backend's state, made as State(stream) by the first call. A stream holds one kind only.
  template <class State>
  State& backend_state() {
    if (!backend_state_) backend_state_ = std::make_unique<State>(*this);
    return static_cast<State&>(*backend_state_);
  }

 private:
  Stream(Device device, int num_threads) : device_(device), num_threads_(num_threads) {}

  Device device_;
  int num_threads_;
  Profile profile_;
  std::unique_ptr<BackendState> backend_state_;
};

}  // namespace jamba

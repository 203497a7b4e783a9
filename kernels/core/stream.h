#pragma once
// An ordered queue of operations on one device, and the counters of what ran on it.

#include <memory>
#include <vector>

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

/// Which of a device's streams goes first where both have work.
enum class StreamPriority { normal, high };

/// Operations issued to one Stream run in order. On the CPU they have finished when the call
/// returns; on CUDA the call only issues them, and they have finished after synchronize().
/// CUDA's discipline: a tensor belongs to the stream whose operations use it. Another stream may
/// use it after wait_for(), and hands it back the same way. Memory of an Arena is handed out again
/// in the order of one stream, so an arena serves one stream. The host sees results after
/// synchronize(), or after copy() to memory that is not page-locked.
/// Threads: a stream belongs to the thread that made it (OpenMP's thread count is a property of
/// the calling thread, and so is CUDA's current device).
class Stream {
 public:
  /// num_threads <= 0 takes OpenMP's default for this thread.
  static Stream cpu(int num_threads = 0);
  /// A new stream of the device, on the CPU with so many threads.
  /// Errors: UnsupportedError if there is no such device.
  static Stream on(Device device, int num_threads = 0,
                   StreamPriority priority = StreamPriority::normal);

  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Stream(Stream&&) = default;
  Stream& operator=(Stream&&) = default;

  Device device() const { return device_; }
  /// On CUDA, 1.
  int num_threads() const { return num_threads_; }
  void synchronize();
  /// What is issued here from now on runs after what was issued to `other` so far. Returns at once.
  void wait_for(Stream& other);
  Profile& profile() { return profile_; }

  /// The backend's state of this type, made as State(stream) by the first call.
  template <class State>
  State& backend_state() {
    static constexpr char kKey = 0;
    for (const auto& [key, state] : backend_states_)
      if (key == &kKey) return static_cast<State&>(*state);
    auto state = std::make_unique<State>(*this);
    State& made = *state;
    backend_states_.emplace_back(&kKey, std::move(state));
    return made;
  }
  /// The device's own stream; null on the CPU.
  BackendState* native() { return native_.get(); }

 private:
  Stream(Device device, int num_threads) : device_(device), num_threads_(num_threads) {}

  Device device_;
  int num_threads_;
  Profile profile_;
  std::unique_ptr<BackendState> native_;  // outlives the other states
  std::vector<std::pair<const char*, std::unique_ptr<BackendState>>> backend_states_;
};

}  // namespace jamba

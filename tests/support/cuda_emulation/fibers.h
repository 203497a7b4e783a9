#pragma once
// Switching between stacks.

#include <cstddef>

namespace cuda_emulation {

constexpr std::size_t kStackBytes = 128 << 10;

/// A stack that waits for its turn. A stack's memory is made once and used again.
class Fiber {
 public:
  /// The next switch to it calls `entry`, which never returns.
  void start(void (*entry)());
  void* saved = nullptr;  // its stack pointer while others run

  const char* stack() const { return stack_; }

 private:
  char* stack_ = nullptr;
};

/// Goes on where `to` left off; returns when somebody comes back to `from`.
void switch_fibers(Fiber& from, Fiber& to);

}  // namespace cuda_emulation

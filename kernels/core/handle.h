#pragma once
// Move-only ownership of a C library's handle.

#include <utility>

namespace jamba {

/// Closes `H` by `Close` unless it equals `null`. Close must not throw.
template <class H, auto Close, H null = H{}>
class UniqueHandle {
 public:
  UniqueHandle() = default;
  explicit UniqueHandle(H handle) : handle_(handle) {}
  ~UniqueHandle() { reset(); }
  UniqueHandle(UniqueHandle&& other) noexcept : handle_(std::exchange(other.handle_, null)) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  H get() const { return handle_; }
  explicit operator bool() const { return handle_ != null; }
  /// Gives the handle up to a caller who closes it himself, to see the result.
  H release() { return std::exchange(handle_, null); }
  void reset() {
    if (handle_ != null) Close(handle_);
    handle_ = null;
  }

 private:
  H handle_ = null;
};

}  // namespace jamba

#pragma once
#include "kernels/core/memory.h"

namespace jamba {

enum class HostAccess { read, write };

/// A tensor as the host sees it: where it lies, if that is the host's memory, else a copy there.
class HostView {
 public:
  /// For reading, waits until the stream has the values; for writing, the content is unspecified.
  HostView(Stream& stream, const Tensor& t, HostAccess access);

  /// On the CPU, with the tensor's dims.
  const Tensor& tensor() const { return view_; }
  template <class T>
  T* ptr() const {
    return view_.ptr<T>();
  }
  /// Gives the tensor what was written here, in the stream's order.
  void store() const;

 private:
  Stream& stream_;
  Tensor tensor_, view_;
  Buffer copy_;
};

}  // namespace jamba

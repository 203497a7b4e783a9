#pragma once
#include "trainer/model/context.h"

namespace jamba {

/// The stream and arenas that one rank's model runs on.
class Workspace {
 public:
  explicit Workspace(Stream& stream)
      : stream_(stream), activations_(stream.device()), scratch_(stream.device()) {}

  Context context(Write weight_gradients = Write::accumulate) {
    return Context{stream_, activations_, scratch_, weight_gradients};
  }
  Stream& stream() { return stream_; }
  Arena& activations() { return activations_; }
  Arena& scratch() { return scratch_; }

  /// Releases the tensors of the last microbatch.
  void reset() {
    activations_.reset();
    scratch_.reset();
  }

 private:
  Stream& stream_;
  Arena activations_, scratch_;
};

}  // namespace jamba

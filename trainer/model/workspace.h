#pragma once
#include "trainer/model/context.h"

namespace jamba {

/// The stream and arenas that one rank's model runs on, outside training.
class Workspace {
 public:
  Workspace(Stream& stream, const Mesh& mesh)
      : stream_(stream), mesh_(mesh), activations_(stream.device()), scratch_(stream.device()) {}

  Context context() { return Context{stream_, activations_, scratch_, mesh_}; }
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
  const Mesh& mesh_;
  Arena activations_, scratch_;
};

}  // namespace jamba

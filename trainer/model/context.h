#pragma once
// What a layer may touch while it runs.

#include "kernels/core/memory.h"
#include "kernels/core/stream.h"
#include "kernels/linear/matmul.h"

namespace jamba {

/// Handed to every forward and backward. Nothing else is shared between layers.
struct Context {
  Stream& stream;
  Arena& activations;  // outputs and saved state: live until the microbatch's backward is done
  Arena& scratch;      // temporaries of one call, released when it returns
  /// Overwrite in the first microbatch of a step: weight gradients of matrices need no zeroing.
  Write weight_gradients = Write::accumulate;

  Tensor activation(DType dtype, std::initializer_list<std::int64_t> dims) const {
    return activations.allocate(dtype, dims);
  }
  Tensor temporary(DType dtype, std::initializer_list<std::int64_t> dims) const {
    return scratch.allocate(dtype, dims);
  }
};

/// How the tokens of a microbatch lie: `batch` sequences of `seq` tokens.
struct Sequences {
  std::int64_t batch = 0;
  std::int64_t seq = 0;
  Tensor doc_start;  // int32 [batch, seq], place of the document's first token; absent: all zero
  Tensor positions;  // int32 [batch * seq], place within the document; only RoPE reads it

  std::int64_t tokens() const { return batch * seq; }
};

/// A parameter as layers see it: its value, and where its gradient accumulates (absent outside
/// training).
struct Weight {
  Tensor value;
  Tensor grad;
  bool present() const { return value.present(); }
};

}  // namespace jamba

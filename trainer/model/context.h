#pragma once
// What a layer may touch while it runs.

#include <functional>

#include "kernels/core/memory.h"
#include "kernels/core/stream.h"
#include "parallel/mesh.h"
#include "trainer/model/weight.h"

namespace jamba {

/// Handed to every forward and backward. Nothing else is shared between layers.
struct Context {
  Stream& stream;
  Arena& activations;  // outputs and saved state: live until the microbatch's backward is done
  Arena& scratch;      // temporaries of one call, released when it returns
  const Mesh& mesh;

  Tensor activation(DType dtype, std::initializer_list<std::int64_t> dims) const {
    return activations.allocate(dtype, dims);
  }
  Tensor temporary(DType dtype, std::initializer_list<std::int64_t> dims) const {
    return scratch.allocate(dtype, dims);
  }
};

/// Called by a layer's backward as soon as its input's gradient is complete and gradients of
/// weights are still to come: the moment to send it on its way.
using InputGradientReady = std::function<void()>;

/// How the tokens of a microbatch lie: this rank's `seq` tokens of `batch` sequences. Along context
/// parallelism each rank has consecutive tokens of every sequence.
struct Sequences {
  std::int64_t batch = 0;
  std::int64_t seq = 0;
  Tensor doc_start;  // int32 [batch, seq], place of the document's first token among this rank's
                     // tokens, negative if an earlier rank has it; absent: no boundaries
  Tensor positions;  // int32 [batch * seq], place within the document; only RoPE reads it
  std::int64_t whole_seq = 0;  // of all ranks
  Tensor whole_doc_start;      // int32 [batch, whole_seq], places in the whole sequence; or absent
  std::int64_t documents = 0;  // in all whole sequences together; 0: not counted

  std::int64_t tokens() const { return batch * seq; }
};

}  // namespace jamba

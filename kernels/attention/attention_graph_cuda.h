#pragma once
// Attention as a graph of cuDNN's. Private to kernels/attention, and to the test that asks cuDNN
// whether it has kernels for such graphs.

#include <cstdint>
#include <memory>

#include "kernels/attention/attention.h"

namespace cudnn_frontend::graph {
class Graph;
}

namespace jamba::cuda {

enum class Direction { forward, backward };

/// Tensors of a graph, by the numbers that tie them to memory.
struct AttentionUid {
  enum : std::int64_t {
    q = 1,
    k,
    v,
    out,
    statistics,
    dout,
    dq,
    dk,
    dv,
    query_lengths,
    key_lengths,
    query_places,
    key_places,
    statistics_places,
  };
};
/// A graph that is not built yet, of bfloat16 tensors that lie as attention.h says, with gradients
/// summed in a fixed order. segments > 0: its batch is that many segments, packed; their places and
/// lengths come from memory (segments.h), and statistics are [batch * seq, num_heads].
std::unique_ptr<cudnn_frontend::graph::Graph> make_attention_graph(Direction, const AttentionShape&,
                                                                   std::int64_t segments,
                                                                   float scale);

}  // namespace jamba::cuda

#pragma once
// Packed documents as cuDNN's variable lengths describe them. Private to kernels/attention.

#include "kernels/attention/attention.h"

namespace jamba::cuda {

/// One segment a document and sequence: its queries, and the keys from the document's first to the
/// last query's place. Slots beyond the last segment have no queries and no keys.
/// Shapes: lengths [slots]; places [slots + 1]: the first element of the segment's first token in
/// q, in k and in the [batch * seq, num_heads] of statistics, and at last the end of all. Dtypes:
/// lengths int32, places int64.
struct Segments {
  Tensor query_lengths, key_lengths;
  Tensor query_places, key_places, statistics_places;
};

/// Of doc_start [batch, seq], which must have at most `slots` segments.
Segments find_segments(Stream&, Arena& memory, Tensor doc_start, const AttentionShape&,
                       std::int64_t slots);

}  // namespace jamba::cuda

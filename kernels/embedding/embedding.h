#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

// A rank holds the rows [first_id, first_id + rows) of an embedding table of vocab_size rows; one
// rank alone holds all from 0 on. Ids count over the whole table. Summed over ranks that tile it, y
// is the lookup and every row has its gradient.
// Errors: LogicError if shapes disagree or an id is outside [0, vocab_size). On CUDA nobody looks
// at ids on the host: one outside counts as another rank's.

/// Copies rows of the embedding table: y[t] = table[ids[t] - first_id], or 0 if it is not here.
/// Shapes: y [tokens, model]; ids [tokens]; table [rows, model].
/// Dtypes: y, table float32 or bfloat16, equal; ids int32.
void embedding_forward(Stream&, Tensor y, Tensor ids, Tensor table, std::int64_t first_id,
                       std::int64_t vocab_size);

/// Adds to each row of this rank the sum of its tokens' gradients: the sum is rounded before the
/// row is added, so that it has the same bits whatever dtable holds.
/// Shapes: as forward; dtable [rows, model].   Dtypes: dtable float32; dy float32 or bfloat16.
/// padding_id: tokens with this id add nothing (nn.Embedding's padding_idx); -1 for none.
/// Determinism: each row sums its tokens in ascending order, for any thread count. CUDA: a stable
/// radix sort of the ids by row, then one sum a row.
void embedding_backward(Stream&, Arena& scratch, Tensor dtable, Tensor dy, Tensor ids,
                        std::int64_t first_id, std::int64_t vocab_size, std::int64_t padding_id);

}  // namespace jamba

#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Copies rows of the embedding table: y[t] = table[ids[t]].
/// Shapes: y [tokens, model]; ids [tokens]; table [vocab, model].
/// Dtypes: y, table float32 or bfloat16, equal; ids int32.
/// Errors: LogicError if shapes disagree or an id is outside [0, vocab).
void embedding_forward(Stream&, Tensor y, Tensor ids, Tensor table);

/// Adds each token's gradient to its row: dtable[ids[t]] += dy[t].
/// Shapes: as forward; dtable [vocab, model].   Dtypes: dtable float32; dy float32 or bfloat16.
/// padding_id: tokens with this id add nothing (nn.Embedding's padding_idx); -1 for none.
/// Determinism: each row sums its tokens in ascending order, for any thread count.
void embedding_backward(Stream&, Tensor dtable, Tensor dy, Tensor ids, std::int64_t padding_id);

}  // namespace jamba

#pragma once
#include <span>

#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Sorts the tokens * k routed copies by expert, stable in (token, slot).
/// capacity: copies that an expert takes, the first ones; the rest are dropped. 0: all.
/// Shapes: index [tokens, k]; row_of_slot [tokens * k]: the row that copy (token, slot) gets, or -1
///         if it was dropped; slot_of_row [tokens * k]: its inverse, the first offsets[experts] of
///         it; offsets [experts + 1] on the host.
/// Dtypes: all int32, offsets int64.
/// Errors: LogicError for an index that is no expert's; on CUDA indices are trusted.
/// CUDA: waits for the device, since the host needs the offsets.
/// Determinism: independent of threads.
void build_permutation(Stream&, Tensor row_of_slot, Tensor slot_of_row,
                       std::span<std::int64_t> offsets, Tensor index, std::int64_t capacity = 0);

/// rows[r] = x[slot_of_row[r] / k].
/// Shapes: rows [num_rows, model]; x [tokens, model]; slot_of_row [num_rows] and more.
/// Dtypes: float32 or bfloat16, equal.
void permute_forward(Stream&, Tensor rows, Tensor x, Tensor slot_of_row, std::int64_t k);
/// dx[t] = sum over slots that have a row, ascending, of drows[row_of_slot[t, slot]]. Sums in
/// float32.
void permute_backward(Stream&, Tensor dx, Tensor drows, Tensor row_of_slot, std::int64_t k);

/// The routing weights in the order of the rows: row_weight[r] = weight[slot_of_row[r]].
/// Shapes: row_weight [num_rows]; weight [tokens, k].   Dtypes: float32.
void permute_weights_forward(Stream&, Tensor row_weight, Tensor weight, Tensor slot_of_row);
/// dweight[t, slot] = drow_weight[row_of_slot[t, slot]], 0 for dropped copies.
void permute_weights_backward(Stream&, Tensor dweight, Tensor drow_weight, Tensor row_of_slot);

}  // namespace jamba

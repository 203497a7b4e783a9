#pragma once
#include <span>

#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Sorts the tokens * k routed copies by expert, stable in (token, slot).
/// Shapes: index [tokens, k]; row_of_slot [tokens * k]: the row that copy (token, slot) gets;
///         slot_of_row [tokens * k], its inverse; offsets [experts + 1] on the host.
/// Dtypes: all int32, offsets int64.
/// Determinism: independent of threads.
void build_permutation(Stream&, Tensor row_of_slot, Tensor slot_of_row,
                       std::span<std::int64_t> offsets, Tensor index);

/// rows[r] = x[slot_of_row[r] / k].
/// Shapes: rows [tokens * k, model]; x [tokens, model].   Dtypes: float32 or bfloat16, equal.
void permute_forward(Stream&, Tensor rows, Tensor x, Tensor slot_of_row, std::int64_t k);
/// dx[t] = sum over slots, ascending, of drows[row_of_slot[t, slot]].   Sums in float32.
void permute_backward(Stream&, Tensor dx, Tensor drows, Tensor row_of_slot, std::int64_t k);

/// y[t] = sum over slots, ascending, of weight[t, slot] * rows[row_of_slot[t, slot]].
/// Shapes: y [tokens, model]; rows [tokens * k, model]; weight [tokens, k] float32.
void combine_forward(Stream&, Tensor y, Tensor rows, Tensor row_of_slot, Tensor weight);
/// drows[r] = weight * dy[token];  dweight[t, slot] = <dy[t], rows[row]>.   Both overwrite.
/// Aliasing: drows may be rows.
void combine_backward(Stream&, Tensor drows, Tensor dweight, Tensor dy, Tensor rows,
                      Tensor row_of_slot, Tensor weight);

}  // namespace jamba

#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Bytes of one row of `model` elements together with the float32 that goes with it.
std::int64_t packed_row_bytes(DType dtype, std::int64_t model);

// Rows together with one float32 each, so that they travel as one message.
// Dtypes: packed uint8; rows float32 or bfloat16; weight float32; index int32. Bits stay the same.
// Aliasing: none.   Errors: LogicError if shapes disagree; indices are trusted.

/// packed[i] = (rows[index[i] / k], weight[index[i]]).
/// Shapes: packed [num_packed, packed_row_bytes]; rows [tokens, model]; weight [tokens * k];
///         index [num_packed] and more.
void pack_rows(Stream&, Tensor packed, Tensor rows, Tensor weight, Tensor index, std::int64_t k);
/// (rows[i], weight[i]) = packed[index[i]], or packed[i] where index is absent.
/// Shapes: rows [num_rows, model]; weight [num_rows]; packed [any, packed_row_bytes], with
///         num_rows and more if index is absent; index [num_rows] and more.
void unpack_rows(Stream&, Tensor rows, Tensor weight, Tensor packed, Tensor index);

}  // namespace jamba

#pragma once
// The one order in which a group's floating-point sums are taken.

#include <cstddef>
#include <span>

#include "kernels/core/stream.h"
#include "parallel/comm/operation.h"

namespace jamba {

/// out = the sum or maximum of the parts.
/// Shapes: out and each of the parts [n].
/// Dtypes: float32, int64; bfloat16 for sums.
/// Aliasing: out may be one of the parts.
/// Determinism: parts are added in pairs of neighbours, ((0+1)+(2+3))+..., the left side being the
///   largest power of two below their number; in float32, rounded once for bfloat16.
void reduce_parts(Stream&, DType, ReduceOp, std::byte* out, std::span<const std::byte* const> parts,
                  std::int64_t n);

}  // namespace jamba

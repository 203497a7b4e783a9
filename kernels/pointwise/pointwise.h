#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Sets every byte to zero.
void zero(Stream&, Tensor x);
/// y = x, converting between float32 and bfloat16 (round to nearest even).
void cast(Stream&, Tensor y, Tensor x);
/// y += x.   Dtypes: float32 or bfloat16, independently. Sums in float32.
void add(Stream&, Tensor y, Tensor x);
/// x *= factor.   x float32 or bfloat16.
void scale(Stream&, Tensor x, float factor);
/// y += factor * x.   Dtypes: float32 or bfloat16, equal.
void add_scaled(Stream&, Tensor y, Tensor x, float factor);

/// Sum of squares in double; +inf or NaN if any element is not finite.
/// Determinism: fixed blocks, summed in order, for any thread count.
double sum_of_squares(Stream&, Arena& scratch, Tensor x);

}  // namespace jamba

#pragma once
#include "kernels/core/exact_sum.h"
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

/// Elements of x whose squares add_squares rounds to one double.
inline constexpr std::int64_t kSquaresBlock = 256;

/// Adds the squares of x to an exact sum: in double within blocks of kSquaresBlock elements from
/// the start of x, exactly from there on. So parts of a tensor that are cut at multiples of a block
/// give, on any rank and in any order, the sum of the whole.
/// Shapes: words [ExactSum::kNumWords], to be added to those of an ExactSum.
/// Dtypes: words int64; x float32 or bfloat16.
/// Determinism: bitwise for any thread count. A NaN or infinity in x makes the sum one.
void add_squares(Stream&, Arena& scratch, Tensor words, Tensor x);
/// Adds such words to a sum on the host. CUDA: waits for the device.
void add_words(Stream&, ExactSum& sum, Tensor words);
/// Both: the squares of x, to a sum on the host.
void add_squares(Stream&, Arena& scratch, ExactSum& sum, Tensor x);
/// The same sum, of x alone.
double sum_of_squares(Stream&, Arena& scratch, Tensor x);

}  // namespace jamba

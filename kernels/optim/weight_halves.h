#pragma once
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

// A float32 weight in two halves, for training in bfloat16: layers read `value`, the optimizer
// updates both as one float32 number. So a master weight costs 4 bytes, not 6.
//   value = weight rounded to the nearest bfloat16, halfway cases away from zero
//   rest  = bits(weight) - bits(value) * 2^16, modulo 2^16
// Halfway cases away from zero, unlike elsewhere: to even, two weights would share one pair.
// Shapes: value, rest, weight [n].   Dtypes: value bfloat16; rest uint16; weight float32.
// Joining gives back every bit. The value of a NaN that arithmetic makes is a NaN; one that is
// signalling, or whose mantissa is all ones, may become infinite or zero.
// Aliasing: none.   Determinism: element-wise.

void split_weight(Stream&, Tensor value, Tensor rest, Tensor weight);
void join_weight(Stream&, Tensor weight, Tensor value, Tensor rest);

}  // namespace jamba

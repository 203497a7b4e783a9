#pragma once
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

/// y = silu(gate) * up, where the first half of each row of gate_up is the gate.
/// Shapes: gate_up [rows, 2 * ffn]; y [rows, ffn].
/// Dtypes: float32 or bfloat16, equal. Arithmetic in float32.
void swiglu_forward(Stream&, Tensor y, Tensor gate_up);

/// Shapes: dgate_up [rows, 2 * ffn]; dy [rows, ffn].   Aliasing: dgate_up may be gate_up.
void swiglu_backward(Stream&, Tensor dgate_up, Tensor dy, Tensor gate_up);

}  // namespace jamba

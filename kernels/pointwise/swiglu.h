#pragma once
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

/// y = silu(gate) * up, where the first half of each row of gate_up is the gate.
/// Shapes: gate_up [rows, 2 * ffn]; y [rows, ffn].
/// Dtypes: float32 or bfloat16, equal. Arithmetic in float32.
void swiglu_forward(Stream&, Tensor y, Tensor gate_up);

/// Also writes forward's y again, with the same bits: nobody needs to keep it for the layer after.
/// Shapes: dgate_up [rows, 2 * ffn]; y, dy [rows, ffn].
/// Aliasing: dgate_up may be gate_up, y may be dy.
void swiglu_backward(Stream&, Tensor dgate_up, Tensor y, Tensor dy, Tensor gate_up);

}  // namespace jamba

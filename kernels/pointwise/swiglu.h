#pragma once
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

/// y = row_scale * silu(gate) * up, where the first half of each row of gate_up is the gate.
/// Shapes: gate_up [rows, 2 * ffn]; y [rows, ffn]; row_scale [rows], or absent for 1.
/// Dtypes: gate_up, y float32 or bfloat16, equal; row_scale float32. Arithmetic in float32.
void swiglu_forward(Stream&, Tensor y, Tensor gate_up, Tensor row_scale = {});

/// Also writes forward's y again, with the same bits: nobody needs to keep it for the layer after.
/// Shapes: dgate_up [rows, 2 * ffn]; y, dy [rows, ffn]; row_scale, drow_scale [rows], both absent
/// or neither. All overwrite. Aliasing: dgate_up may be gate_up, y may be dy.
void swiglu_backward(Stream&, Tensor dgate_up, Tensor y, Tensor drow_scale, Tensor dy,
                     Tensor gate_up, Tensor row_scale);

}  // namespace jamba

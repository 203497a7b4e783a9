#pragma once
#include <span>

#include "kernels/linear/matmul.h"

namespace jamba {

// The three products of matmul.h for every expert at once. Rows are grouped by expert: expert e
// owns rows [offsets[e], offsets[e + 1]).
// Shapes: offsets [experts + 1] on the host, ascending from 0 to num_rows; w, dw [experts, out,
// in]. Dtypes, errors, determinism as in matmul.h.  An expert without rows is ordinary: its dw gets
// zero (overwrite) or stays (accumulate).
// CPU: the tiles of all experts are shared out among the threads, so experts may be uneven. An
// expert's rows get the bits that the plain products give them.

/// y = x w_e^T.   Shapes: y [num_rows, out]; x [num_rows, in].
void grouped_linear_forward(Stream&, Arena& scratch, Tensor y, Tensor x, Tensor w,
                            std::span<const std::int64_t> offsets);
/// dx = dy w_e.   Shapes: dx [num_rows, in]; dy [num_rows, out].
void grouped_linear_backward_input(Stream&, Arena& scratch, Tensor dx, Tensor dy, Tensor w,
                                   std::span<const std::int64_t> offsets);
/// dw_e += dy_e^T x_e.   dw float32.
void grouped_linear_backward_weight(Stream&, Arena& scratch, Tensor dw, Tensor dy, Tensor x,
                                    std::span<const std::int64_t> offsets,
                                    Write = Write::accumulate);

}  // namespace jamba

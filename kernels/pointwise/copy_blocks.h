#pragma once
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/core/write.h"

namespace jamba {

/// Where blocks of consecutive elements lie in a tensor: block (i, j) begins at element
/// begin + i * outer_stride + j * inner_stride.
struct BlockLayout {
  std::int64_t begin = 0;
  std::int64_t outer_stride = 0, inner_stride = 0;
};

/// How many blocks, and the elements of each. A count of 0: nothing is copied.
struct BlockCount {
  std::int64_t outer = 0, inner = 0, width = 0;
};

/// Copies blocks from x to out, or adds them: what parallel ranks need to change the order of dims.
/// Dtypes: equal; any for overwrite, float32 or bfloat16 for accumulate (sums in float32).
/// Aliasing: none; blocks of out must not overlap.
/// Errors: LogicError if a block reaches beyond its tensor, a stride is negative or dtypes differ.
void copy_blocks(Stream&, Tensor out, const BlockLayout& out_layout, Tensor x,
                 const BlockLayout& x_layout, const BlockCount&, Write = Write::overwrite);

}  // namespace jamba

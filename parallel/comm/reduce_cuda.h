#pragma once
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba::cuda {

/// out [n] = sum over ranks of their parts, in float32, ranks pairwise as Communicator says,
/// rounded once. Rank r's part is parts + r * n, but the own rank's, which lies at `own`. out may
/// be own. Dtypes: float32 or bfloat16.   Limits: 1023 ranks.
void reduce_parts(Stream&, DType, void* out, const void* parts, const void* own, int rank,
                  int ranks, std::int64_t n);

}  // namespace jamba::cuda

#pragma once
// The second half of sums over blocks: each block leaves a row of partial sums, and the rows are
// added in order.

#include "kernels/core/cuda/launch.cuh"

namespace jamba::cuda {

inline constexpr int kAddPartsThreads = 256;

static __global__ void __launch_bounds__(kAddPartsThreads)
    add_parts_kernel(float* to, const float* parts, Index num_parts, Index n, Index stride) {
  const Index i = static_cast<Index>(blockIdx.x) * kAddPartsThreads + threadIdx.x;
  if (i >= n) return;
  float sum = 0.0f;
  for (Index p = 0; p < num_parts; ++p) sum += parts[p * stride + i];
  to[i] += sum;
}

/// to [n] += the sum of parts [num_parts, stride], of which the first n columns count.
inline void add_parts(Stream& stream, float* to, const float* parts, Index num_parts, Index n,
                      Index stride) {
  launch<kAddPartsThreads>(stream, add_parts_kernel, {ceil_div(n, kAddPartsThreads)}, 0, to, parts,
                           num_parts, n, stride);
}
inline void add_parts(Stream& stream, float* to, const float* parts, Index num_parts, Index n) {
  add_parts(stream, to, parts, num_parts, n, n);
}

}  // namespace jamba::cuda

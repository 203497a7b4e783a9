// Bytes bound.

#include "kernels/core/cuda/add_parts.cuh"
#include "kernels/linear/matmul.h"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;
/// Tokens that one partial sum covers.
constexpr Index kTokenBlock = 64;

/// parts [token blocks, out].
template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(float* parts, const T* dy, Index tokens, Index out) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= out) return;
  const Index begin = blockIdx.y * kTokenBlock;
  const Index end = begin + kTokenBlock < tokens ? begin + kTokenBlock : tokens;
  float sum = 0.0f;
  for (Index t = begin; t < end; ++t) sum += to_float(dy[t * out + i]);
  parts[blockIdx.y * out + i] = sum;
}

}  // namespace

void bias_backward(Stream& stream, Arena& scratch, Tensor dbias, Tensor dy) {
  const std::int64_t tokens = dy.rows(), out = dy.cols(), blocks = ceil_div(tokens, kTokenBlock);
  const ArenaScope scope(scratch);
  float* const parts = scratch.allocate(DType::f32, {blocks, out}).ptr<float>();
  visit_float(dy.dtype(), [&]<class T>(T) {
    launch<kThreads>(stream, backward_kernel<T>, {ceil_div(out, kThreads), blocks}, 0, parts,
                     dy.ptr<T>(), tokens, out);
  });
  add_parts(stream, dbias.ptr<float>(), parts, blocks, out);
}

}  // namespace jamba::cuda

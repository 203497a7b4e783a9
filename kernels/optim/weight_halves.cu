// Bytes bound: 8 bytes an element.

#include "kernels/optim/weight_halves.h"

#include "kernels/core/cuda/launch.cuh"
#include "kernels/optim/weight_halves.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    split_kernel(bfloat16* value, std::uint16_t* rest, const float* weight, Index n) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const WeightHalves halves = split_halves(weight[i]);
  value[i] = halves.value;
  rest[i] = halves.rest;
}

__global__ void __launch_bounds__(kThreads)
    join_kernel(float* weight, const bfloat16* value, const std::uint16_t* rest, Index n) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) weight[i] = join_halves(value[i], rest[i]);
}

}  // namespace

void split_weight(Stream& stream, Tensor value, Tensor rest, Tensor weight) {
  launch<kThreads>(stream, split_kernel, {ceil_div(weight.numel(), kThreads)}, 0,
                   value.ptr<bfloat16>(), rest.ptr<std::uint16_t>(), weight.ptr<float>(),
                   weight.numel());
}

void join_weight(Stream& stream, Tensor weight, Tensor value, Tensor rest) {
  launch<kThreads>(stream, join_kernel, {ceil_div(weight.numel(), kThreads)}, 0,
                   weight.ptr<float>(), value.ptr<bfloat16>(), rest.ptr<std::uint16_t>(),
                   weight.numel());
}

}  // namespace jamba::cuda

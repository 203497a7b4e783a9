// Bytes bound: 28 bytes an element. Parameters of one unit are one flat array, so a step is one
// launch a unit, however many tensors it has.

#include "kernels/optim/adamw.h"

#include "kernels/core/cuda/launch.cuh"
#include "kernels/optim/weight_halves.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;

struct PlainWeight {
  float* data;
  __device__ __forceinline__ float load(Index i) const { return data[i]; }
  __device__ __forceinline__ void store(float w, Index i) const { data[i] = w; }
};

struct HalvedWeight {
  bfloat16* value;
  std::uint16_t* rest;
  __device__ __forceinline__ float load(Index i) const { return join_halves(value[i], rest[i]); }
  __device__ __forceinline__ void store(float w, Index i) const {
    const WeightHalves halves = split_halves(w);
    value[i] = halves.value;
    rest[i] = halves.rest;
  }
};

/// AdamWStep as the kernel uses it.
struct Factors {
  float grad_scale, blend1, blend2, decay, inverse_bc2, rate, eps;
};

template <class Weight>
__global__ void __launch_bounds__(kThreads)
    update_kernel(Weight weight, float* m, float* v, const float* grad, Index n, Factors f) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const float g = f.grad_scale * grad[i];
  const float new_m = fmaf(f.blend1, g - m[i], m[i]);
  const float new_v = fmaf(f.blend2, g * g - v[i], v[i]);
  const float denominator = sqrtf(new_v * f.inverse_bc2) + f.eps;
  m[i] = new_m;
  v[i] = new_v;
  weight.store(fmaf(-f.rate, new_m / denominator, f.decay * weight.load(i)), i);
}

}  // namespace

void adamw(Stream& stream, Tensor weight, Tensor rest, Tensor m, Tensor v, Tensor grad,
           const AdamWStep& step) {
  const Factors factors{step.grad_scale,
                        1.0f - step.beta1,
                        1.0f - step.beta2,
                        1.0f - step.lr * step.weight_decay,
                        1.0f / step.bias_correction2,
                        step.lr / step.bias_correction1,
                        step.eps};
  const auto run = [&]<class Weight>(const Weight& w) {
    launch<kThreads>(stream, update_kernel<Weight>, {ceil_div(weight.numel(), kThreads)}, 0, w,
                     m.ptr<float>(), v.ptr<float>(), grad.ptr<float>(), weight.numel(), factors);
  };
  if (rest.present()) {
    run(HalvedWeight{weight.ptr<bfloat16>(), rest.ptr<std::uint16_t>()});
  } else {
    run(PlainWeight{weight.ptr<float>()});
  }
}

}  // namespace jamba::cuda

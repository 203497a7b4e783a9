#include "kernels/optim/adamw.h"

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/adamw_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Elements of one unit of parallel work.
constexpr std::int64_t kBlock = 16384;

struct Pointers {
  float *weight, *m, *v;
  const float* grad;
  bfloat16* compute;  // null if absent
};

void update_block(const Pointers& p, std::int64_t begin, std::int64_t end, const AdamWStep& step) {
  const DF d;
  const VF grad_scale = hn::Set(d, step.grad_scale);
  const VF blend1 = hn::Set(d, 1.0f - step.beta1);
  const VF blend2 = hn::Set(d, 1.0f - step.beta2);
  const VF decay = hn::Set(d, 1.0f - step.lr * step.weight_decay);
  const VF inverse_bc2 = hn::Set(d, 1.0f / step.bias_correction2);
  const VF rate = hn::Set(d, step.lr / step.bias_correction1);
  const VF eps = hn::Set(d, step.eps);
  for_lanes(end - begin, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const std::int64_t at = begin + i;
    const VF g = hn::Mul(grad_scale, load_n(p.grad + at, n));
    VF m = load_n(p.m + at, n), v = load_n(p.v + at, n);
    m = hn::MulAdd(blend1, hn::Sub(g, m), m);
    v = hn::MulAdd(blend2, hn::Sub(hn::Mul(g, g), v), v);
    const VF denominator = hn::Add(hn::Sqrt(hn::Mul(v, inverse_bc2)), eps);
    const VF w =
        hn::NegMulAdd(rate, hn::Div(m, denominator), hn::Mul(decay, load_n(p.weight + at, n)));
    store_n(m, p.m + at, n);
    store_n(v, p.v + at, n);
    store_n(w, p.weight + at, n);
    if (p.compute != nullptr) store_n(w, p.compute + at, n);
  });
}

void update(Stream& stream, Tensor weight, Tensor m, Tensor v, Tensor grad, Tensor compute,
            const AdamWStep& step) {
  const Pointers p{weight.ptr<float>(), m.ptr<float>(), v.ptr<float>(), grad.ptr<float>(),
                   compute.present() ? compute.ptr<bfloat16>() : nullptr};
  parallel_blocks(stream, weight.numel(), kBlock,
                  [&](std::int64_t begin, std::int64_t end) { update_block(p, begin, end, step); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(update);

void adamw(Stream& stream, Tensor weight, Tensor m, Tensor v, Tensor grad, Tensor compute,
           const AdamWStep& step) {
  HWY_DYNAMIC_DISPATCH(update)(stream, weight, m, v, grad, compute, step);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

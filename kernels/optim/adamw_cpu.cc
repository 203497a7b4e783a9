#include "kernels/optim/adamw.h"

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/adamw_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/optim/weight_halves-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Elements of one unit of parallel work.
constexpr std::int64_t kBlock = 16384;

struct Moments {
  float *m, *v;
  const float* grad;
};

struct PlainWeight {
  float* data;
  HWY_INLINE VF load(std::int64_t at, std::int64_t n) const { return load_n(data + at, n); }
  HWY_INLINE void store(VF w, std::int64_t at, std::int64_t n) const { store_n(w, data + at, n); }
};

struct HalvedWeight {
  bfloat16* value;
  std::uint16_t* rest;
  HWY_INLINE VF load(std::int64_t at, std::int64_t n) const {
    return join_halves(value + at, rest + at, n);
  }
  HWY_INLINE void store(VF w, std::int64_t at, std::int64_t n) const {
    split_halves(w, value + at, rest + at, n);
  }
};

template <class Weight>
void update_block(const Weight& weight, const Moments& p, std::int64_t begin, std::int64_t end,
                  const AdamWStep& step) {
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
    const VF w = hn::NegMulAdd(rate, hn::Div(m, denominator), hn::Mul(decay, weight.load(at, n)));
    store_n(m, p.m + at, n);
    store_n(v, p.v + at, n);
    weight.store(w, at, n);
  });
}

void update(Stream& stream, Tensor weight, Tensor rest, Tensor m, Tensor v, Tensor grad,
            const AdamWStep& step) {
  const Moments moments{m.ptr<float>(), v.ptr<float>(), grad.ptr<float>()};
  const auto run = [&](const auto& w) {
    parallel_blocks(stream, weight.numel(), kBlock, [&](std::int64_t begin, std::int64_t end) {
      update_block(w, moments, begin, end, step);
    });
  };
  if (rest.present()) {
    run(HalvedWeight{weight.ptr<bfloat16>(), rest.ptr<std::uint16_t>()});
  } else {
    run(PlainWeight{weight.ptr<float>()});
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(update);

void adamw(Stream& stream, Tensor weight, Tensor rest, Tensor m, Tensor v, Tensor grad,
           const AdamWStep& step) {
  HWY_DYNAMIC_DISPATCH(update)(stream, weight, rest, m, v, grad, step);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

#include <algorithm>

#include "kernels/core/parallel.h"
#include "kernels/linear/matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear/bias_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Tokens that one partial sum covers; also the unit of parallel work.
constexpr std::int64_t kTokenBlock = 64;

template <class Y, class X>
HWY_INLINE void add_row(Y* y, const X* x, std::int64_t n) {
  for_lanes(n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    store_n(hn::Add(load_n(y + i, count), load_n(x + i, count)), y + i, count);
  });
}

void backward(Stream& stream, Arena& scratch, Tensor dbias, Tensor dy) {
  const std::int64_t tokens = dy.dim(0), out = dy.dim(1);
  const std::int64_t num_blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
  ArenaScope scope(scratch);
  float* partials = scratch.allocate(DType::f32, {num_blocks, out}).ptr<float>();
  visit_float(dy.dtype(), [&]<class T>(T) {
    const T* from = dy.ptr<T>();
    parallel_blocks(stream, tokens, kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
      float* partial = partials + begin / kTokenBlock * out;
      std::fill(partial, partial + out, 0.0f);
      for (std::int64_t t = begin; t < end; ++t) add_row(partial, from + t * out, out);
    });
  });
  for (std::int64_t b = 0; b < num_blocks; ++b)
    add_row(dbias.ptr<float>(), partials + b * out, out);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(backward);

void bias_backward(Stream& stream, Arena& scratch, Tensor dbias, Tensor dy) {
  HWY_DYNAMIC_DISPATCH(backward)(stream, scratch, dbias, dy);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

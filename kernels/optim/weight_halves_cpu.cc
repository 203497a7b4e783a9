#include "kernels/optim/weight_halves.h"

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim/weight_halves_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/optim/weight_halves-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

constexpr std::int64_t kBlock = 16384;

void split(Stream& stream, Tensor value, Tensor rest, Tensor weight) {
  parallel_blocks(stream, weight.numel(), kBlock, [&](std::int64_t begin, std::int64_t end) {
    for_lanes(end - begin, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
      split_halves(load_n(weight.ptr<float>() + begin + i, n), value.ptr<bfloat16>() + begin + i,
                   rest.ptr<std::uint16_t>() + begin + i, n);
    });
  });
}

void join(Stream& stream, Tensor weight, Tensor value, Tensor rest) {
  parallel_blocks(stream, weight.numel(), kBlock, [&](std::int64_t begin, std::int64_t end) {
    for_lanes(end - begin, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
      store_n(
          join_halves(value.ptr<bfloat16>() + begin + i, rest.ptr<std::uint16_t>() + begin + i, n),
          weight.ptr<float>() + begin + i, n);
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(split);
HWY_EXPORT(join);

void split_weight(Stream& stream, Tensor value, Tensor rest, Tensor weight) {
  HWY_DYNAMIC_DISPATCH(split)(stream, value, rest, weight);
}

void join_weight(Stream& stream, Tensor weight, Tensor value, Tensor rest) {
  HWY_DYNAMIC_DISPATCH(join)(stream, weight, value, rest);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

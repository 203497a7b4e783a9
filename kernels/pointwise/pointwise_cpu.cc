#include "kernels/pointwise/pointwise.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pointwise/pointwise_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Elements of one unit of parallel work.
constexpr std::int64_t kBlock = 16384;
static_assert(kBlock % kSquaresBlock == 0);

/// y[i] = f(y[i], x[i]) over all elements; y and x of any two floating dtypes.
template <class F>
HWY_INLINE void update(Stream& stream, Tensor y, Tensor x, const F& f) {
  visit_float(y.dtype(), [&]<class Y>(Y) {
    visit_float(x.dtype(), [&]<class X>(X) {
      Y* to = y.ptr<Y>();
      const X* from = x.ptr<X>();
      parallel_blocks(stream, y.numel(), kBlock,
                      [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                        for_lanes(end - begin, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
                          const std::int64_t at = begin + i;
                          store_n(f(to + at, load_n(from + at, n), n), to + at, n);
                        });
                      });
    });
  });
}

void cast(Stream& stream, Tensor y, Tensor x) {
  update(stream, y, x, [](const auto*, VF from, std::int64_t) HWY_ATTR { return from; });
}

void add(Stream& stream, Tensor y, Tensor x) {
  update(stream, y, x, [](const auto* to, VF from, std::int64_t n) HWY_ATTR {
    return hn::Add(load_n(to, n), from);
  });
}

void scale(Stream& stream, Tensor x, float factor) {
  update(stream, x, x, [factor](const auto*, VF from, std::int64_t) HWY_ATTR {
    return hn::Mul(from, hn::Set(DF(), factor));
  });
}

void add_scaled(Stream& stream, Tensor y, Tensor x, float factor) {
  update(stream, y, x, [factor](const auto* to, VF from, std::int64_t n) HWY_ATTR {
    return hn::MulAdd(hn::Set(DF(), factor), from, load_n(to, n));
  });
}

/// In double: the square of a large but finite float must not overflow, and millions of small ones
/// must still count next to a large sum.
template <class T>
double block_sum_of_squares(const T* x, std::int64_t n) {
  const hn::ScalableTag<double> dd;
  const hn::Rebind<float, decltype(dd)> narrow;
  const auto half = static_cast<std::int64_t>(hn::Lanes(dd));
  auto low = hn::Zero(dd), high = hn::Zero(dd);  // two chains hide the latency of the sum
  for_lanes(n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    HWY_ALIGN float values[HWY_MAX_BYTES / 4];
    hn::Store(load_n(x + i, count), DF(), values);
    const auto a = hn::PromoteTo(dd, hn::Load(narrow, values));
    low = hn::MulAdd(a, a, low);
    if (half == lanes()) return;  // a scalar target
    const auto b = hn::PromoteTo(dd, hn::Load(narrow, values + half));
    high = hn::MulAdd(b, b, high);
  });
  return hn::GetLane(hn::SumOfLanes(dd, hn::Add(low, high)));
}

void add_squares(Stream& stream, Arena& scratch, Tensor words, Tensor x) {
  const std::int64_t num_sums = (x.numel() + kSquaresBlock - 1) / kSquaresBlock;
  ArenaScope scope(scratch);
  auto* sums = static_cast<double*>(
      scratch.allocate_bytes(num_sums * static_cast<std::int64_t>(sizeof(double))));
  visit_float(x.dtype(), [&]<class T>(T) {
    const T* from = x.ptr<T>();
    parallel_blocks(stream, x.numel(), kBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; i += kSquaresBlock) {
        sums[i / kSquaresBlock] = block_sum_of_squares(from + i, std::min(kSquaresBlock, end - i));
      }
    });
  });
  ExactSum sum;
  for (std::int64_t i = 0; i < num_sums; ++i) sum.add(sums[i]);
  const std::span<const std::int64_t> terms = sum.words();
  for (std::size_t i = 0; i < terms.size(); ++i) words.ptr<std::int64_t>()[i] += terms[i];
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(cast);
HWY_EXPORT(add);
HWY_EXPORT(scale);
HWY_EXPORT(add_scaled);
HWY_EXPORT(add_squares);

void zero(Stream& stream, Tensor x) {
  constexpr std::int64_t kBlockBytes = 1 << 16;
  char* bytes = static_cast<char*>(x.raw());
  parallel_blocks(stream, x.bytes(), kBlockBytes, [&](std::int64_t begin, std::int64_t end) {
    std::memset(bytes + begin, 0, static_cast<std::size_t>(end - begin));
  });
}

void cast(Stream& stream, Tensor y, Tensor x) { HWY_DYNAMIC_DISPATCH(cast)(stream, y, x); }

void add(Stream& stream, Tensor y, Tensor x) { HWY_DYNAMIC_DISPATCH(add)(stream, y, x); }

void scale(Stream& stream, Tensor x, float factor) {
  HWY_DYNAMIC_DISPATCH(scale)(stream, x, factor);
}

void add_scaled(Stream& stream, Tensor y, Tensor x, float factor) {
  HWY_DYNAMIC_DISPATCH(add_scaled)(stream, y, x, factor);
}

void add_squares(Stream& stream, Arena& scratch, Tensor words, Tensor x) {
  HWY_DYNAMIC_DISPATCH(add_squares)(stream, scratch, words, x);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

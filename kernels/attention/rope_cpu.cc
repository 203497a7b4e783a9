#include "kernels/attention/rope.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/rope_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

constexpr std::int64_t kTokenBlock = 16;
/// Pairs whose frequencies and rotations are held on the stack at a time.
constexpr std::int64_t kPairs = 64;

template <class T>
void rotate(T* low, T* high, const float* cosine, const float* sine, std::int64_t pairs) {
  for_lanes(pairs, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF a = load_n(low + i, n), b = load_n(high + i, n);
    const VF c = load_n(cosine + i, n), s = load_n(sine + i, n);
    store_n(hn::NegMulAdd(b, s, hn::Mul(a, c)), low + i, n);
    store_n(hn::MulAdd(a, s, hn::Mul(b, c)), high + i, n);
  });
}

/// Rotates pairs [first, first + pairs) of all heads of tokens [begin, end).
template <class T>
void rotate_block(T* x, const std::int32_t* positions, std::int64_t begin, std::int64_t end,
                  std::int64_t cols, std::int64_t head_dim, double theta, double direction,
                  std::int64_t first, std::int64_t pairs) {
  std::array<double, kPairs> frequency;
  std::array<float, kPairs> cosine, sine;
  for (std::int64_t i = 0; i < pairs; ++i) {
    const double exponent = -2.0 * static_cast<double>(first + i) / static_cast<double>(head_dim);
    frequency[i] = direction * std::pow(theta, exponent);
  }
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t i = 0; i < pairs; ++i) {
      const double angle = positions[t] * frequency[i];
      cosine[i] = static_cast<float>(std::cos(angle));
      sine[i] = static_cast<float>(std::sin(angle));
    }
    for (std::int64_t head = 0; head < cols; head += head_dim) {
      T* low = x + t * cols + head + first;
      rotate(low, low + head_dim / 2, cosine.data(), sine.data(), pairs);
    }
  }
}

void turn(Stream& stream, Tensor x, Tensor positions, std::int64_t head_dim, double theta,
          double direction) {
  visit_float(x.dtype(), [&]<class T>(T) {
    parallel_blocks(stream, x.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t first = 0; first < head_dim / 2; first += kPairs) {
        rotate_block(x.ptr<T>(), positions.ptr<std::int32_t>(), begin, end, x.cols(), head_dim,
                     theta, direction, first, std::min(kPairs, head_dim / 2 - first));
      }
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(turn);

void rope(Stream& stream, Tensor x, Tensor positions, std::int64_t head_dim, double theta,
          Rotation rotation) {
  const double direction = rotation == Rotation::forward ? 1.0 : -1.0;
  HWY_DYNAMIC_DISPATCH(turn)(stream, x, positions, head_dim, theta, direction);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

#include "parallel/comm/reduce.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "kernels/core/parallel.h"

namespace jamba {

namespace {

/// Elements summed at a time: they and what they come from fit the nearest cache.
constexpr std::int64_t kBlock = 1024;
/// Elements that a thread takes at a time.
constexpr std::int64_t kGrain = 32 * kBlock;

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};

template <class T>
const T* at(const std::byte* part, std::int64_t begin) {
  return reinterpret_cast<const T*>(part) + begin;
}

/// total [n <= kBlock] = elements [begin, begin + n) of all parts, in tree order.
template <class T, class Op>
void reduce_block(std::span<const std::byte* const> parts, std::int64_t begin, std::int64_t n,
                  Op op, Wide<T>* __restrict total) {
  const T* const first = at<T>(parts[0], begin);
  if (parts.size() == 1) {
    for (std::int64_t i = 0; i < n; ++i) total[i] = static_cast<Wide<T>>(first[i]);
    return;
  }
  if (parts.size() == 2) {
    const T* const second = at<T>(parts[1], begin);
    for (std::int64_t i = 0; i < n; ++i) {
      total[i] = op(static_cast<Wide<T>>(first[i]), static_cast<Wide<T>>(second[i]));
    }
    return;
  }
  const std::size_t left = std::bit_floor(parts.size() - 1);
  reduce_block<T>(parts.first(left), begin, n, op, total);
  alignas(64) Wide<T> right[kBlock];
  reduce_block<T>(parts.subspan(left), begin, n, op, right);
  for (std::int64_t i = 0; i < n; ++i) total[i] = op(total[i], right[i]);
}

template <class T, class Op>
void reduce_all(Stream& stream, std::byte* out, std::span<const std::byte* const> parts,
                std::int64_t n, Op op) {
  parallel_blocks(stream, n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    // Whole blocks go through here, so that out may be one of the parts.
    alignas(64) Wide<T> total[kBlock];
    for (; begin < end; begin += kBlock) {
      const std::int64_t count = std::min(kBlock, end - begin);
      reduce_block<T>(parts, begin, count, op, total);
      T* const target = reinterpret_cast<T*>(out) + begin;
      for (std::int64_t i = 0; i < count; ++i) target[i] = static_cast<T>(total[i]);
    }
  });
}

}  // namespace

void reduce_parts(Stream& stream, DType dtype, ReduceOp op, std::byte* out,
                  std::span<const std::byte* const> parts, std::int64_t n) {
  const auto reduce = [&](auto type) {
    using T = decltype(type);
    if (op == ReduceOp::sum) return reduce_all<T>(stream, out, parts, n, Sum{});
    if constexpr (!std::is_same_v<T, bfloat16>) return reduce_all<T>(stream, out, parts, n, Max{});
  };
  if (dtype == DType::f32) return reduce(float{});
  if (dtype == DType::bf16) return reduce(bfloat16{});
  JAMBA_CHECK(dtype == DType::i64, "no reduction of {}", dtype_name(dtype));
  reduce(std::int64_t{});
}

}  // namespace jamba

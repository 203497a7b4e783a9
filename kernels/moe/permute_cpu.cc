#include "kernels/moe/permute.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/moe/permute_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

constexpr std::int64_t kTokenBlock = 32;

/// y[t] = sum over slots of weight * rows[row]; a null weight means 1.
template <class T>
void gather_row(T* y, const T* rows, const std::int32_t* row_of_slot, const float* weight,
                std::int64_t k, std::int64_t model) {
  for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    VF sum = hn::Zero(DF());
    for (std::int64_t s = 0; s < k; ++s) {
      const VF w = hn::Set(DF(), weight == nullptr ? 1.0f : weight[s]);
      sum = hn::MulAdd(w, load_n(rows + row_of_slot[s] * model + i, n), sum);
    }
    store_n(sum, y + i, n);
  });
}

void gather(Stream& stream, Tensor y, Tensor rows, Tensor row_of_slot, const float* weight,
            std::int64_t k) {
  const std::int64_t model = y.cols();
  const std::int32_t* row = row_of_slot.ptr<std::int32_t>();
  visit_float(y.dtype(), [&]<class T>(T) {
    T* to = y.ptr<T>();
    const T* from = rows.ptr<T>();
    parallel_blocks(stream, y.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        gather_row(to + t * model, from, row + t * k, weight == nullptr ? nullptr : weight + t * k,
                   k, model);
      }
    });
  });
}

/// drow = weight * dy; returns <dy, row>. Each element of row is read before drow overwrites it.
template <class T>
float spread_row(T* drow, const T* dy, const T* row, float weight, std::int64_t model) {
  VF dots = hn::Zero(DF());
  const VF w = hn::Set(DF(), weight);
  for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const VF g = load_n(dy + i, n);
    dots = hn::MulAdd(g, load_n(row + i, n), dots);
    store_n(hn::Mul(w, g), drow + i, n);
  });
  return sum_lanes(dots);
}

void spread(Stream& stream, Tensor drows, Tensor dweight, Tensor dy, Tensor rows,
            Tensor row_of_slot, Tensor weight) {
  const std::int64_t model = dy.cols(), k = weight.cols();
  const std::int32_t* row = row_of_slot.ptr<std::int32_t>();
  visit_float(dy.dtype(), [&]<class T>(T) {
    parallel_blocks(stream, dy.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t slot = begin * k; slot < end * k; ++slot) {
        dweight.ptr<float>()[slot] =
            spread_row(drows.ptr<T>() + row[slot] * model, dy.ptr<T>() + slot / k * model,
                       rows.ptr<T>() + row[slot] * model, weight.ptr<float>()[slot], model);
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

HWY_EXPORT(gather);
HWY_EXPORT(spread);

/// A counting sort. It is a hundredth of the work of moving the rows, so one thread does it.
void build_permutation(Stream&, Tensor row_of_slot, Tensor slot_of_row,
                       std::span<std::int64_t> offsets, Tensor index) {
  const std::int64_t slots = index.numel(), experts = std::ssize(offsets) - 1;
  const std::int32_t* expert = index.ptr<std::int32_t>();
  std::int32_t* row_of = row_of_slot.ptr<std::int32_t>();
  std::int32_t* slot_of = slot_of_row.ptr<std::int32_t>();
  std::int64_t* next = offsets.data();
  std::fill_n(next, experts + 1, 0);
  for (std::int64_t s = 0; s < slots; ++s) {
    JAMBA_CHECK(expert[s] >= 0 && expert[s] < experts, "expert {} of token {}, out of {} experts",
                expert[s], s / index.cols(), experts);
    ++next[expert[s] + 1];
  }
  for (std::int64_t e = 0; e < experts; ++e) next[e + 1] += next[e];
  for (std::int64_t s = 0; s < slots; ++s) {
    const auto row = static_cast<std::int32_t>(next[expert[s]]++);
    row_of[s] = row;
    slot_of[row] = static_cast<std::int32_t>(s);
  }
  // Every expert's place now stands at its end, which is where the next one starts.
  std::copy_backward(next, next + experts, next + experts + 1);
  next[0] = 0;
}

void permute_forward(Stream& stream, Tensor rows, Tensor x, Tensor slot_of_row, std::int64_t k) {
  constexpr std::int64_t kRowBlock = 32;
  const std::int64_t row_bytes = x.cols() * dtype_bytes(x.dtype());
  const std::int32_t* slot = slot_of_row.ptr<std::int32_t>();
  const char* from = static_cast<const char*>(x.raw());
  char* to = static_cast<char*>(rows.raw());
  parallel_blocks(stream, rows.rows(), kRowBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::memcpy(to + r * row_bytes, from + slot[r] / k * row_bytes,
                  static_cast<std::size_t>(row_bytes));
    }
  });
}

void permute_backward(Stream& stream, Tensor dx, Tensor drows, Tensor row_of_slot, std::int64_t k) {
  HWY_DYNAMIC_DISPATCH(gather)(stream, dx, drows, row_of_slot, nullptr, k);
}

void combine_forward(Stream& stream, Tensor y, Tensor rows, Tensor row_of_slot, Tensor weight) {
  HWY_DYNAMIC_DISPATCH(gather)
  (stream, y, rows, row_of_slot, weight.ptr<float>(), weight.cols());
}

void combine_backward(Stream& stream, Tensor drows, Tensor dweight, Tensor dy, Tensor rows,
                      Tensor row_of_slot, Tensor weight) {
  HWY_DYNAMIC_DISPATCH(spread)(stream, drows, dweight, dy, rows, row_of_slot, weight);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

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

/// y = sum over slots that have a row.
template <class T>
void gather_row(T* y, const T* rows, const std::int32_t* row_of_slot, std::int64_t k,
                std::int64_t model) {
  for_lanes(model, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    VF sum = hn::Zero(DF());
    for (std::int64_t s = 0; s < k; ++s) {
      if (row_of_slot[s] < 0) continue;
      sum = hn::Add(sum, load_n(rows + row_of_slot[s] * model + i, n));
    }
    store_n(sum, y + i, n);
  });
}

void gather(Stream& stream, Tensor y, Tensor rows, Tensor row_of_slot, std::int64_t k) {
  const std::int64_t model = y.cols();
  const std::int32_t* row = row_of_slot.ptr<std::int32_t>();
  visit_float(y.dtype(), [&]<class T>(T) {
    T* to = y.ptr<T>();
    const T* from = rows.ptr<T>();
    parallel_blocks(stream, y.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        gather_row(to + t * model, from, row + t * k, k, model);
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

/// A counting sort. It is a hundredth of the work of moving the rows, so one thread does it.
void build_permutation(Stream&, Tensor row_of_slot, Tensor slot_of_row,
                       std::span<std::int64_t> offsets, Tensor index, std::int64_t capacity) {
  const std::int64_t slots = index.numel(), experts = std::ssize(offsets) - 1;
  const std::int32_t* expert = index.ptr<std::int32_t>();
  std::int32_t* row_of = row_of_slot.ptr<std::int32_t>();
  std::int32_t* slot_of = slot_of_row.ptr<std::int32_t>();
  std::int64_t* next = offsets.data();
  std::fill_n(next, experts + 1, 0);
  for (std::int64_t s = 0; s < slots; ++s) {
    JAMBA_CHECK(expert[s] >= 0 && expert[s] < experts, "expert {} of token {}, out of {} experts",
                expert[s], s / index.cols(), experts);
    std::int64_t& count = next[expert[s] + 1];
    const bool dropped = capacity > 0 && count == capacity;
    row_of[s] = dropped ? -1 : static_cast<std::int32_t>(count++);  // among those of its expert
  }
  for (std::int64_t e = 0; e < experts; ++e) next[e + 1] += next[e];
  for (std::int64_t s = 0; s < slots; ++s) {
    if (row_of[s] < 0) continue;
    row_of[s] += static_cast<std::int32_t>(next[expert[s]]);
    slot_of[row_of[s]] = static_cast<std::int32_t>(s);
  }
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
  HWY_DYNAMIC_DISPATCH(gather)(stream, dx, drows, row_of_slot, k);
}

// One number a row: a thousandth of the work of moving the rows.
void permute_weights_forward(Stream&, Tensor row_weight, Tensor weight, Tensor slot_of_row) {
  const std::int32_t* slot = slot_of_row.ptr<std::int32_t>();
  for (std::int64_t r = 0; r < row_weight.numel(); ++r) {
    row_weight.ptr<float>()[r] = weight.ptr<float>()[slot[r]];
  }
}

void permute_weights_backward(Stream&, Tensor dweight, Tensor drow_weight, Tensor row_of_slot) {
  const std::int32_t* row = row_of_slot.ptr<std::int32_t>();
  for (std::int64_t slot = 0; slot < dweight.numel(); ++slot) {
    dweight.ptr<float>()[slot] = row[slot] < 0 ? 0.0f : drow_weight.ptr<float>()[row[slot]];
  }
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

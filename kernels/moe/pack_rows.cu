// Bytes bound: a block a row, in units of 4 bytes, or of 2 where rows of bfloat16 are odd.

#include "kernels/moe/pack_rows.h"

#include "kernels/core/cuda/launch.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;

/// Units of a row and of a weight; a packed row has both, one behind the other.
struct Widths {
  Index row, weight;
};

template <class Unit>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(Unit* packed, const Unit* rows, const Unit* weight, const std::int32_t* index,
                Index k, Widths n) {
  const Index place = index[blockIdx.x];
  Unit* const to = packed + static_cast<Index>(blockIdx.x) * (n.row + n.weight);
  for (Index i = threadIdx.x; i < n.row; i += kThreads) to[i] = rows[place / k * n.row + i];
  for (Index i = threadIdx.x; i < n.weight; i += kThreads)
    to[n.row + i] = weight[place * n.weight + i];
}

template <class Unit>
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(Unit* rows, Unit* weight, const Unit* packed, const std::int32_t* index,
                  Widths n) {
  const Index row = blockIdx.x, place = index == nullptr ? row : index[row];
  const Unit* const from = packed + place * (n.row + n.weight);
  for (Index i = threadIdx.x; i < n.row; i += kThreads) rows[row * n.row + i] = from[i];
  for (Index i = threadIdx.x; i < n.weight; i += kThreads)
    weight[row * n.weight + i] = from[n.row + i];
}

/// Calls f(Unit{}, widths).
template <class F>
void visit_unit(const Tensor& packed, const Tensor& rows, F&& f) {
  const std::int64_t bytes = rows.cols() * dtype_bytes(rows.dtype());
  const bool aligned = bytes % 4 == 0 && reinterpret_cast<std::uintptr_t>(rows.raw()) % 4 == 0 &&
                       reinterpret_cast<std::uintptr_t>(packed.raw()) % 4 == 0;
  if (aligned) {
    f(std::uint32_t{}, Widths{bytes / 4, 1});
  } else {
    f(std::uint16_t{}, Widths{bytes / 2, 2});
  }
}

}  // namespace

void pack_rows(Stream& stream, Tensor packed, Tensor rows, Tensor weight, Tensor index,
               std::int64_t k) {
  visit_unit(packed, rows, [&]<class Unit>(Unit, Widths widths) {
    launch<kThreads>(stream, pack_kernel<Unit>, {packed.rows()}, 0,
                     static_cast<Unit*>(packed.raw()), static_cast<const Unit*>(rows.raw()),
                     static_cast<const Unit*>(weight.raw()), index.ptr<std::int32_t>(), k, widths);
  });
}

void unpack_rows(Stream& stream, Tensor rows, Tensor weight, Tensor packed, Tensor index) {
  visit_unit(packed, rows, [&]<class Unit>(Unit, Widths widths) {
    launch<kThreads>(stream, unpack_kernel<Unit>, {rows.rows()}, 0, static_cast<Unit*>(rows.raw()),
                     static_cast<Unit*>(weight.raw()), static_cast<const Unit*>(packed.raw()),
                     index.ptr<std::int32_t>(), widths);
  });
}

}  // namespace jamba::cuda

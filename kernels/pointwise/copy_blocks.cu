// Bytes bound: a thread moves the widest unit that all places allow, up to 16 bytes.

#include "kernels/pointwise/copy_blocks.h"

#include "kernels/core/cuda/launch.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;

/// The copy in units of `Unit`: every figure of the layouts counts them.
struct Plan {
  Index to_begin, to_outer, to_inner, from_begin, from_outer, from_inner;
  Index inner, width, total;

  __device__ __forceinline__ void places(Index unit, Index& to, Index& from) const {
    const Index block = unit / width, at = unit - block * width;
    const Index i = block / inner, j = block - i * inner;
    to = to_begin + i * to_outer + j * to_inner + at;
    from = from_begin + i * from_outer + j * from_inner + at;
  }
};

template <class Unit>
__global__ void __launch_bounds__(kThreads) copy_kernel(Unit* out, const Unit* x, Plan plan) {
  const Index unit = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (unit >= plan.total) return;
  Index to = 0, from = 0;
  plan.places(unit, to, from);
  *as_wide<Unit>(out + to) = *as_wide<const Unit>(x + from);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    add_kernel(Pack<T, N>* out, const Pack<T, N>* x, Plan plan) {
  const Index unit = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (unit >= plan.total) return;
  Index to = 0, from = 0;
  plan.places(unit, to, from);
  Pack<T, N> sum = *as_wide<const Pack<T, N>>(out + to);
  const Pack<T, N> term = *as_wide<const Pack<T, N>>(x + from);
#pragma unroll
  for (int i = 0; i < N; ++i) sum.v[i] = from_float<T>(to_float(sum.v[i]) + to_float(term.v[i]));
  out[to] = sum;
}

/// Whether all places are multiples of `elements` elements of `element` bytes.
bool allows(Index elements, Index element, const Tensor& out, const BlockLayout& to,
            const Tensor& x, const BlockLayout& from, const BlockCount& count) {
  for (const Index figure : {to.begin, to.outer_stride, to.inner_stride, from.begin,
                             from.outer_stride, from.inner_stride, count.width}) {
    if (figure % elements != 0) return false;
  }
  const auto bytes = static_cast<std::uintptr_t>(elements * element);
  return reinterpret_cast<std::uintptr_t>(out.raw()) % bytes == 0 &&
         reinterpret_cast<std::uintptr_t>(x.raw()) % bytes == 0;
}

Plan make_plan(Index elements, const BlockLayout& to, const BlockLayout& from,
               const BlockCount& count) {
  return {to.begin / elements,
          to.outer_stride / elements,
          to.inner_stride / elements,
          from.begin / elements,
          from.outer_stride / elements,
          from.inner_stride / elements,
          count.inner,
          count.width / elements,
          count.outer * count.inner * (count.width / elements)};
}

}  // namespace

void copy_blocks(Stream& stream, Tensor out, const BlockLayout& to, Tensor x,
                 const BlockLayout& from, const BlockCount& count, Write write) {
  const auto run = [&](Index elements, auto&& kernel, auto* unit) {
    using Unit = std::remove_pointer_t<decltype(unit)>;
    const Plan plan = make_plan(elements, to, from, count);
    launch<kThreads>(stream, kernel, {ceil_div(plan.total, kThreads)}, 0,
                     static_cast<Unit*>(out.raw()), static_cast<const Unit*>(x.raw()), plan);
  };
  const Index element = dtype_bytes(x.dtype());
  if (write == Write::accumulate) {
    visit_float(x.dtype(), [&]<class T>(T) {
      constexpr int kPack = 16 / sizeof(T);
      if (allows(kPack, element, out, to, x, from, count)) {
        run(kPack, add_kernel<T, kPack>, static_cast<Pack<T, kPack>*>(nullptr));
      } else {
        run(1, add_kernel<T, 1>, static_cast<Pack<T, 1>*>(nullptr));
      }
    });
    return;
  }
  const auto copies = [&]<int kBytes>(std::integral_constant<int, kBytes>) {
    if (kBytes < element ||
        (kBytes > element && !allows(kBytes / element, element, out, to, x, from, count)))
      return false;
    using Unit = Pack<std::uint8_t, kBytes>;
    run(kBytes / element, copy_kernel<Unit>, static_cast<Unit*>(nullptr));
    return true;
  };
  static_cast<void>(
      copies(std::integral_constant<int, 16>{}) || copies(std::integral_constant<int, 8>{}) ||
      copies(std::integral_constant<int, 4>{}) || copies(std::integral_constant<int, 2>{}) ||
      copies(std::integral_constant<int, 1>{}));
}

}  // namespace jamba::cuda

#include "kernels/moe/permute.h"

#include <vector>

#include "kernels/core/backend.h"
#include "kernels/core/cuda/counting_sort.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;

struct ExpertOf {
  const std::int32_t* index;
  __device__ __forceinline__ int operator()(Index slot) const { return index[slot]; }
};

/// offsets [experts + 1] from `first`, where each (expert, tile) begins among all slots, with a
/// last entry for the number of slots. One block.
__global__ void __launch_bounds__(kThreads)
    offsets_kernel(std::int64_t* offsets, const int* first, Index tiles, int experts,
                   Index capacity) {
  if (threadIdx.x > 0) return;
  std::int64_t next = 0;
  for (int e = 0; e < experts; ++e) {
    offsets[e] = next;
    const std::int64_t count = first[(e + 1) * tiles] - first[e * tiles];
    next += capacity > 0 && count > capacity ? capacity : count;
  }
  offsets[experts] = next;
}

__global__ void __launch_bounds__(kSortTile)
    place_kernel(std::int32_t* row_of_slot, std::int32_t* slot_of_row, const std::int64_t* offsets,
                 const int* first, ExpertOf expert_of, Index slots, Index capacity) {
  __shared__ int experts[kSortTile];
  const Index slot = static_cast<Index>(blockIdx.x) * kSortTile + threadIdx.x;
  const int expert = slot < slots ? expert_of(slot) : -1;
  const int rank = rank_in_tile(expert, experts);
  if (slot >= slots) return;
  const Index tiles = gridDim.x;
  const Index within = first[expert * tiles + blockIdx.x] - first[expert * tiles] + rank;
  if (capacity > 0 && within >= capacity) {
    row_of_slot[slot] = -1;
    return;
  }
  const Index row = offsets[expert] + within;
  row_of_slot[slot] = static_cast<std::int32_t>(row);
  slot_of_row[row] = static_cast<std::int32_t>(slot);
}

/// Memory of build_permutation, which has no scratch arena; grows to the largest call.
class PermutationMemory final : public BackendState {
 public:
  explicit PermutationMemory(Stream& stream) : device_(stream.device()) {}

  int* occurrences(std::int64_t count) {
    return static_cast<int*>(grown(occurrences_, count * std::int64_t{sizeof(int)}));
  }
  std::int64_t* offsets(std::int64_t count) {
    return static_cast<std::int64_t*>(grown(offsets_, count * std::int64_t{sizeof(std::int64_t)}));
  }

 private:
  void* grown(Buffer& buffer, std::int64_t bytes) {
    if (buffer.bytes() < bytes) buffer = Buffer(bytes, device_, Fill::untouched);
    return buffer.data();
  }

  Device device_;
  Buffer occurrences_, offsets_;
};

/// rows[r] = x[place[r] / k]. Bytes bound.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    gather_rows_kernel(T* rows, const T* x, const std::int32_t* place, Index k, Index model) {
  const Index row = blockIdx.x;
  using P = Pack<T, N>;
  const P* const from = as_wide<const P>(x + place[row] / k * model);
  P* const to = as_wide<P>(rows + row * model);
  for (Index i = threadIdx.x; i < model / N; i += kThreads) to[i] = from[i];
}

/// dx[t] = sum over slots that have a row. Bytes bound.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    sum_rows_kernel(T* dx, const T* drows, const std::int32_t* row_of_slot, Index k, Index model) {
  const Index token = blockIdx.x;
  for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
    float sum[N] = {};
    for (Index slot = 0; slot < k; ++slot) {
      const Index row = row_of_slot[token * k + slot];
      if (row < 0) continue;
      float term[N];
      load_pack(term, drows + row * model + i);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += term[j];
    }
    store_pack(dx + token * model + i, sum);
  }
}

/// to[i] = from[place[i]], or 0 where there is no place.
__global__ void __launch_bounds__(kThreads)
    gather_weights_kernel(float* to, const float* from, const std::int32_t* place, Index n) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = place[i] < 0 ? 0.0f : from[place[i]];
}

void gather_weights(Stream& stream, Tensor to, Tensor from, Tensor place) {
  launch<kThreads>(stream, gather_weights_kernel, {ceil_div(to.numel(), kThreads)}, 0,
                   to.ptr<float>(), from.ptr<float>(), place.ptr<std::int32_t>(), to.numel());
}

}  // namespace

void build_permutation(Stream& stream, Tensor row_of_slot, Tensor slot_of_row,
                       std::span<std::int64_t> offsets, Tensor index, std::int64_t capacity) {
  const std::int64_t slots = index.numel(), tiles = ceil_div(slots, kSortTile);
  const int experts = static_cast<int>(offsets.size()) - 1;
  auto& memory = stream.backend_state<PermutationMemory>();
  int* const first = memory.occurrences(experts * tiles + 1);
  std::int64_t* const on_device = memory.offsets(experts + 1);
  const ExpertOf expert_of{index.ptr<std::int32_t>()};
  fill_bytes(stream, first + experts * tiles, 0, sizeof(int));
  launch<kSortTile>(stream, count_keys_kernel<ExpertOf>, {tiles},
                    static_cast<std::size_t>(experts) * sizeof(int), first, expert_of, slots,
                    experts);
  launch<kScanThreads>(stream, exclusive_sum_kernel, {1}, 0, first, experts * tiles + 1);
  launch<kThreads>(stream, offsets_kernel, {1}, 0, on_device, first, tiles, experts, capacity);
  launch<kSortTile>(stream, place_kernel, {tiles}, 0, row_of_slot.ptr<std::int32_t>(),
                    slot_of_row.ptr<std::int32_t>(), on_device, first, expert_of, slots, capacity);
  copy_bytes(stream, offsets.data(), on_device,
             static_cast<std::int64_t>(offsets.size_bytes()));  // waits for the device
}

void permute_forward(Stream& stream, Tensor rows, Tensor x, Tensor slot_of_row, std::int64_t k) {
  visit_float(x.dtype(), [&]<class T>(T) {
    visit_pack<16 / sizeof(T)>(
        x.cols(),
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, gather_rows_kernel<T, N>, {rows.rows()}, 0, rows.ptr<T>(),
                           x.ptr<T>(), slot_of_row.ptr<std::int32_t>(), k, x.cols());
        },
        rows.ptr<T>(), x.ptr<T>());
  });
}

void permute_backward(Stream& stream, Tensor dx, Tensor drows, Tensor row_of_slot, std::int64_t k) {
  visit_float(dx.dtype(), [&]<class T>(T) {
    visit_pack<16 / sizeof(T)>(
        dx.cols(),
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, sum_rows_kernel<T, N>, {dx.rows()}, 0, dx.ptr<T>(),
                           drows.ptr<T>(), row_of_slot.ptr<std::int32_t>(), k, dx.cols());
        },
        dx.ptr<T>(), drows.ptr<T>());
  });
}

void permute_weights_forward(Stream& stream, Tensor row_weight, Tensor weight, Tensor slot_of_row) {
  gather_weights(stream, row_weight, weight, slot_of_row);
}

void permute_weights_backward(Stream& stream, Tensor dweight, Tensor drow_weight,
                              Tensor row_of_slot) {
  gather_weights(stream, dweight, drow_weight, row_of_slot);
}

}  // namespace jamba::cuda

// Integers alone, a few bytes a token: bound by the launches.

#include "kernels/attention/segments.h"

#include "kernels/core/cuda/counting_sort.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;

/// A token begins a segment if it is a sequence's first, or the one before has another document.
struct Boundaries {
  const std::int32_t* doc_start;  // [tokens]
  Index tokens, seq;

  __device__ __forceinline__ bool begins(Index token) const {
    return token % seq == 0 || doc_start[token] != doc_start[token - 1];
  }
  __device__ __forceinline__ bool ends(Index token) const {
    return token + 1 == tokens || begins(token + 1);
  }
};

/// begins[token] = 1 or 0. What it is at the end of all does not count.
__global__ void __launch_bounds__(kThreads) mark_kernel(int* begins, Boundaries boundaries) {
  const Index token = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (token <= boundaries.tokens) begins[token] = boundaries.begins(token) ? 1 : 0;
}

/// first, last [slots]: tokens of the segments. begun[token]: segments that begin before it.
__global__ void __launch_bounds__(kThreads)
    limit_kernel(int* first, int* last, const int* begun, Boundaries boundaries, Index slots) {
  const Index token = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (token >= boundaries.tokens) return;
  const Index segment = begun[token + 1] - 1;
  if (segment >= slots) return;  // more than were promised
  if (boundaries.begins(token)) first[segment] = static_cast<int>(token);
  if (boundaries.ends(token)) last[segment] = static_cast<int>(token);
}

struct Outputs {
  std::int32_t *query_lengths, *key_lengths;
  std::int64_t *query_places, *key_places, *statistics_places;
};

struct Sizes {
  Index seq, seq_keys, batch, query_width, key_width, num_heads;
};

__global__ void __launch_bounds__(kThreads)
    describe_kernel(Outputs out, const int* first, const int* last, const int* begun,
                    const std::int32_t* doc_start, Sizes s, Index slots) {
  const Index slot = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (slot > slots) return;
  const Index tokens = s.batch * s.seq;
  Index query = tokens, key = s.batch * s.seq_keys;
  int query_length = 0, key_length = 0;
  if (slot < slots && slot < begun[tokens]) {
    query = first[slot];
    const Index sequence = query / s.seq, end = last[slot] + 1;
    const Index start = doc_start[query];
    query_length = static_cast<int>(end - query);
    key_length = static_cast<int>(s.seq_keys - s.seq + end - sequence * s.seq - start);
    key = sequence * s.seq_keys + start;
  }
  out.query_places[slot] = query * s.query_width;
  out.key_places[slot] = key * s.key_width;
  out.statistics_places[slot] = query * s.num_heads;
  if (slot == slots) return;
  out.query_lengths[slot] = query_length;
  out.key_lengths[slot] = key_length;
}

}  // namespace

Segments find_segments(Stream& stream, Arena& memory, Tensor doc_start, const AttentionShape& s,
                       std::int64_t slots) {
  const Index tokens = s.batch * s.seq;
  const Segments out{memory.allocate(DType::i32, {slots}), memory.allocate(DType::i32, {slots}),
                     memory.allocate(DType::i64, {slots + 1}),
                     memory.allocate(DType::i64, {slots + 1}),
                     memory.allocate(DType::i64, {slots + 1})};
  const ArenaScope scope(memory);
  int* const begun = memory.allocate(DType::i32, {tokens + 1}).ptr<int>();
  int* const first = memory.allocate(DType::i32, {slots}).ptr<int>();
  int* const last = memory.allocate(DType::i32, {slots}).ptr<int>();
  const Boundaries boundaries{doc_start.ptr<std::int32_t>(), tokens, s.seq};
  launch<kThreads>(stream, mark_kernel, {ceil_div(tokens + 1, kThreads)}, 0, begun, boundaries);
  launch<kScanThreads>(stream, exclusive_sum_kernel, {1}, 0, begun, tokens + 1);
  launch<kThreads>(stream, limit_kernel, {ceil_div(tokens, kThreads)}, 0, first, last, begun,
                   boundaries, slots);
  launch<kThreads>(
      stream, describe_kernel, {ceil_div(slots + 1, kThreads)}, 0,
      Outputs{out.query_lengths.ptr<std::int32_t>(), out.key_lengths.ptr<std::int32_t>(),
              out.query_places.ptr<std::int64_t>(), out.key_places.ptr<std::int64_t>(),
              out.statistics_places.ptr<std::int64_t>()},
      first, last, begun, doc_start.ptr<std::int32_t>(),
      Sizes{s.seq, s.seq_keys, s.batch, s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim,
            s.num_heads},
      slots);
  return out;
}

}  // namespace jamba::cuda

#include "kernels/embedding/embedding.h"

#include "kernels/core/cuda/counting_sort.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;

/// A block a token. Ids of no row here, sound or not, give zeros.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(T* y, const std::int32_t* ids, const T* table, Index model, Index first_id,
                   Index rows) {
  const Index token = blockIdx.x, row = ids[token] - first_id;
  const bool here = row >= 0 && row < rows;
  for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
    Pack<T, N> pack;
    if (here) {
      pack = *as_wide<const Pack<T, N>>(table + row * model + i);
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) pack.v[j] = from_float<T>(0.0f);
    }
    *as_wide<Pack<T, N>>(y + token * model + i) = pack;
  }
}

// --- backward: tokens sorted by row, by radix passes; then one sum a row, in order ---

constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;

/// The row of each token; `rows` for tokens without one, which sort to the end.
__global__ void __launch_bounds__(kSortTile)
    rows_of_tokens_kernel(std::int32_t* row, std::int32_t* token, const std::int32_t* ids,
                          Index tokens, Index first_id, Index rows, Index padding_id) {
  const Index t = static_cast<Index>(blockIdx.x) * kSortTile + threadIdx.x;
  if (t >= tokens) return;
  const Index at = ids[t] - first_id;
  const bool none = at < 0 || at >= rows || ids[t] == padding_id;
  row[t] = static_cast<std::int32_t>(none ? rows : at);
  token[t] = static_cast<std::int32_t>(t);
}

struct DigitOf {
  const std::int32_t* key;
  int shift;
  __device__ __forceinline__ int operator()(Index i) const {
    return key[i] >> shift & (kDigits - 1);
  }
};

/// place [digits, tiles]: where the first such key of the tile goes.
__global__ void __launch_bounds__(kSortTile)
    scatter_kernel(std::int32_t* key_out, std::int32_t* token_out, const std::int32_t* key,
                   const std::int32_t* token, const int* place, Index n, int shift) {
  __shared__ int digits[kSortTile];
  const Index i = static_cast<Index>(blockIdx.x) * kSortTile + threadIdx.x;
  const int digit = i < n ? DigitOf{key, shift}(i) : -1;
  const int rank = rank_in_tile(digit, digits);
  if (i >= n) return;
  const Index to = place[static_cast<Index>(digit) * gridDim.x + blockIdx.x] + rank;
  key_out[to] = key[i];
  token_out[to] = token[i];
}

/// The block at the first of a row's tokens sums all of them, then adds the sum to the row. Bytes
/// bound, but for rows that many tokens share: those are as long as their chain.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    add_rows_kernel(float* dtable, const T* dy, const std::int32_t* row, const std::int32_t* token,
                    Index tokens, Index model, Index rows) {
  const Index begin = blockIdx.x;
  const std::int32_t mine = row[begin];
  if (mine == rows || (begin > 0 && row[begin - 1] == mine)) return;
  for (Index i = threadIdx.x * N; i < model; i += kThreads * N) {
    float sum[N];
    load_pack(sum, dy + token[begin] * model + i);
    for (Index t = begin + 1; t < tokens && row[t] == mine; ++t) {
      float term[N];
      load_pack(term, dy + token[t] * model + i);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += term[j];
    }
    float* const to = dtable + mine * model + i;
    float past[N];
    load_pack(past, to);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += past[j];
    store_pack(to, sum);
  }
}

}  // namespace

void embedding_forward(Stream& stream, Tensor y, Tensor ids, Tensor table, std::int64_t first_id,
                       std::int64_t) {
  visit_float(table.dtype(), [&]<class T>(T) {
    visit_pack<16 / sizeof(T)>(
        table.cols(),
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, forward_kernel<T, N>, {ids.numel()}, 0, y.ptr<T>(),
                           ids.ptr<std::int32_t>(), table.ptr<T>(), table.cols(), first_id,
                           table.dim(0));
        },
        y.ptr<T>(), table.ptr<T>());
  });
}

void embedding_backward(Stream& stream, Arena& scratch, Tensor dtable, Tensor dy, Tensor ids,
                        std::int64_t first_id, std::int64_t, std::int64_t padding_id) {
  const std::int64_t tokens = ids.numel(), rows = dtable.dim(0), model = dtable.cols();
  const std::int64_t tiles = ceil_div(tokens, kSortTile);
  const ArenaScope scope(scratch);
  const auto allocate = [&](std::int64_t n) {
    return scratch.allocate(DType::i32, {n}).ptr<std::int32_t>();
  };
  std::int32_t *row = allocate(tokens), *token = allocate(tokens);
  std::int32_t *next_row = allocate(tokens), *next_token = allocate(tokens);
  int* const place = allocate(kDigits * tiles);
  launch<kSortTile>(stream, rows_of_tokens_kernel, {tiles}, 0, row, token, ids.ptr<std::int32_t>(),
                    tokens, first_id, rows, padding_id);
  for (int shift = 0; (rows >> shift) > 0 && tokens > 0; shift += kDigitBits) {
    launch<kSortTile>(stream, count_keys_kernel<DigitOf>, {tiles}, kDigits * sizeof(int), place,
                      DigitOf{row, shift}, tokens, kDigits);
    launch<kScanThreads>(stream, exclusive_sum_kernel, {1}, 0, place, kDigits * tiles);
    launch<kSortTile>(stream, scatter_kernel, {tiles}, 0, next_row, next_token, row, token, place,
                      tokens, shift);
    std::swap(row, next_row);
    std::swap(token, next_token);
  }
  visit_float(dy.dtype(), [&]<class T>(T) {
    visit_pack<4>(
        model,
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, add_rows_kernel<T, N>, {tokens}, 0, dtable.ptr<float>(),
                           dy.ptr<T>(), row, token, tokens, model, rows);
        },
        dtable.ptr<float>(), dy.ptr<T>());
  });
}

}  // namespace jamba::cuda

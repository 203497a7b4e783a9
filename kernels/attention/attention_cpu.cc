#include "kernels/attention/attention.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/attention/query_block.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/attention/block_matmul-inl.h"
#include "kernels/attention/block_rows-inl.h"
#include "kernels/core/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// What one strand works in. Matrices are [.., kRowStride], a query row a column; keys and values
/// are [kBlockKeys, key_stride].
struct Scratch {
  float *queries, *sums, *scores, *keys, *values;
  float *max, *total, *rescale;  // [kBlockRows]
  std::int64_t key_stride;

  static std::int64_t floats(std::int64_t head_dim) {
    return (2 * head_dim + kBlockKeys) * kRowStride + 2 * kBlockKeys * round_up_lanes(head_dim) +
           3 * kBlockRows;
  }
  Scratch(float* base, std::int64_t head_dim) : key_stride(round_up_lanes(head_dim)) {
    const auto take = [&](std::int64_t n) {
      float* taken = base;
      base += n;
      return taken;
    };
    queries = take(head_dim * kRowStride);
    sums = take(head_dim * kRowStride);
    scores = take(kBlockKeys * kRowStride);
    keys = take(kBlockKeys * key_stride);
    values = take(kBlockKeys * key_stride);
    max = take(kBlockRows);
    total = take(kBlockRows);
    rescale = take(kBlockRows);
  }
};

/// Turns scores of keys [begin, end) into weights 2^(score - max), raises each row's maximum, adds
/// the weights to its total, and leaves the factor that earlier sums need in `rescale`.
template <bool kMasked>
void update_softmax(const Scratch& scratch, const QueryBlock& block, std::int64_t begin,
                    std::int64_t end) {
  const VF lowest = hn::Set(DF(), std::numeric_limits<float>::lowest());
  for (std::int64_t c = 0; c < block.rows; c += lanes()) {
    const VI low = hn::LoadU(DI32(), block.low.data() + c);
    const VI high = hn::LoadU(DI32(), block.high.data() + c);
    float* column = scratch.scores + c;
    const VF old_max = load(scratch.max + c);
    VF max = old_max;
    for (std::int64_t j = begin; j < end; ++j) {
      VF score = load(column + (j - begin) * kRowStride);
      if constexpr (kMasked) score = hn::IfThenElse(hidden(low, high, j), lowest, score);
      max = hn::Max(max, score);
    }
    VF total = hn::Zero(DF());
    for (std::int64_t j = begin; j < end; ++j) {
      float* place = column + (j - begin) * kRowStride;
      VF weight = exp2_clamped(hn::Sub(load(place), max));
      if constexpr (kMasked) weight = hn::IfThenZeroElse(hidden(low, high, j), weight);
      store(weight, place);
      total = hn::Add(total, weight);
    }
    const VF rescale = exp2_clamped(hn::Sub(old_max, max));
    store(max, scratch.max + c);
    store(rescale, scratch.rescale + c);
    store(hn::MulAdd(load(scratch.total + c), rescale, total), scratch.total + c);
  }
}

void rescale_sums(const Scratch& scratch, std::int64_t head_dim, std::int64_t cols) {
  for (std::int64_t c = 0; c < cols; c += lanes()) {
    const VF rescale = load(scratch.rescale + c);
    for (std::int64_t i = 0; i < head_dim; ++i) {
      float* place = scratch.sums + i * kRowStride + c;
      store(hn::Mul(load(place), rescale), place);
    }
  }
}

/// Scores carry a factor log2(e), so that the softmax is one of powers of two.
template <class T>
void forward_block(const Scratch& scratch, T* out, float* lse, const T* q, const T* k, const T* v,
                   const AttentionShape& shape, const QueryBlock& block, float scale) {
  const std::int64_t head_dim = shape.head_dim, cols = round_up_lanes(block.rows);
  gather_transposed(scratch.queries, q, shape, block, scale * std::numbers::log2e_v<float>);
  std::fill_n(scratch.sums, head_dim * kRowStride, 0.0f);
  std::fill_n(scratch.total, kBlockRows, 0.0f);
  // Not -inf: the difference of two maxima must not be NaN while a row has seen no key.
  std::fill_n(scratch.max, kBlockRows, std::numeric_limits<float>::lowest());
  for (std::int64_t begin = block.first_key; begin < block.end_key; begin += kBlockKeys) {
    const std::int64_t end = std::min(begin + kBlockKeys, block.end_key);
    copy_keys(scratch.keys, scratch.key_stride, k, shape, block, begin, end);
    copy_keys(scratch.values, scratch.key_stride, v, shape, block, begin, end);
    block_matmul<Left::row_major, Store::overwrite>(
        {scratch.scores, kRowStride}, {scratch.keys, scratch.key_stride},
        {scratch.queries, kRowStride}, end - begin, cols, head_dim);
    if (block.all_see(begin, end)) {
      update_softmax<false>(scratch, block, begin, end);
    } else {
      update_softmax<true>(scratch, block, begin, end);
    }
    if (begin > block.first_key) rescale_sums(scratch, head_dim, cols);
    block_matmul<Left::column_major, Store::add>(
        {scratch.sums, kRowStride}, {scratch.values, scratch.key_stride},
        {scratch.scores, kRowStride}, head_dim, cols, end - begin);
  }
  for (std::int64_t r = 0; r < block.rows; ++r) {
    lse[statistic_of(shape, block, r)] =
        std::numbers::ln2_v<float> * (scratch.max[r] + std::log2(scratch.total[r]));
    scratch.total[r] = 1.0f / scratch.total[r];
  }
  scatter_transposed(out, scratch.sums, scratch.total, shape, block);
}

void forward(Stream& stream, Arena& arena, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
             Tensor doc_start, const AttentionShape& shape, float scale) {
  const QueryTiling tiling(shape);
  ArenaScope scope(arena);
  const std::int64_t floats = Scratch::floats(shape.head_dim);
  float* base = arena.allocate(DType::f32, {stream.num_threads(), floats}).ptr<float>();
  const std::int32_t* starts = doc_start.present() ? doc_start.ptr<std::int32_t>() : nullptr;
  const std::int64_t groups = shape.batch * shape.num_kv_heads * tiling.blocks_per_group();
  visit_float(q.dtype(), [&]<class T>(T) {
    parallel_items(
        stream, groups * tiling.num_position_blocks, [&](std::int64_t strand, std::int64_t item) {
          // Late positions see the most keys; they go first, so that the small ones fill the end.
          const std::int64_t position_block = tiling.num_position_blocks - 1 - item / groups;
          const std::int64_t group = item % groups, kv = group / tiling.blocks_per_group();
          const QueryBlock block(tiling, starts, kv / shape.num_kv_heads, kv % shape.num_kv_heads,
                                 group % tiling.blocks_per_group(), position_block);
          forward_block(Scratch(base + strand * floats, shape.head_dim), out.ptr<T>(),
                        lse.ptr<float>(), q.ptr<T>(), k.ptr<T>(), v.ptr<T>(), shape, block, scale);
        });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(forward);

void attention_forward(Stream& stream, Arena& scratch, Tensor out, Tensor lse, Tensor q, Tensor k,
                       Tensor v, Tensor doc_start, const AttentionShape& shape, float scale) {
  check_document_starts(doc_start, shape);
  HWY_DYNAMIC_DISPATCH(forward)(stream, scratch, out, lse, q, k, v, doc_start, shape, scale);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

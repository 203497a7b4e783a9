#include <cmath>
#include <numbers>

#include "kernels/attention/attention.h"
#include "kernels/attention/query_block.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_backward_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/attention/block_matmul-inl.h"
#include "kernels/attention/block_rows-inl.h"
#include "kernels/core/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// What one strand works in. Transposed matrices are [.., kRowStride], a query row a column; the
/// others hold a row of a head a line, row_stride apart.
struct Scratch {
  float *queries_t, *douts_t, *dqueries_t;  // [head_dim, kRowStride]
  float *weights, *dscores;                 // [kBlockKeys, kRowStride]
  float *queries, *douts;                   // [kBlockRows, row_stride]
  float *keys, *values;                     // [kBlockKeys, row_stride]
  float *lse, *delta;                       // [kBlockRows]
  std::int64_t row_stride;

  static std::int64_t floats(std::int64_t head_dim) {
    return (3 * head_dim + 2 * kBlockKeys) * kRowStride +
           2 * (kBlockRows + kBlockKeys) * round_up_lanes(head_dim) + 2 * kBlockRows;
  }
  Scratch(float* base, std::int64_t head_dim) : row_stride(round_up_lanes(head_dim)) {
    const auto take = [&](std::int64_t n) {
      float* taken = base;
      base += n;
      return taken;
    };
    for (float** t : {&queries_t, &douts_t, &dqueries_t}) *t = take(head_dim * kRowStride);
    for (float** t : {&weights, &dscores}) *t = take(kBlockKeys * kRowStride);
    for (float** t : {&queries, &douts}) *t = take(kBlockRows * row_stride);
    for (float** t : {&keys, &values}) *t = take(kBlockKeys * row_stride);
    for (float** t : {&lse, &delta}) *t = take(kBlockRows);
  }
};

/// Sums of dk / scale and dv over the queries of one segment, [seq_keys, row_stride] each.
struct Partial {
  float *dk, *dv;
};

template <class T>
struct Operands {
  const T *q, *k, *v, *out, *dout;
  T *dq, *dk, *dv;
  const float* lse;
};

/// delta = <dout, out> of every row, added up in the order in which a key's <dout, value> will be:
/// where a row sees one key the two cancel exactly, and nearly where it sees few.
template <class T>
void load_delta(const Scratch& scratch, const T* out, const AttentionShape& shape,
                const QueryBlock& block) {
  float* const outs_t = scratch.dqueries_t;  // free until the first key
  gather_transposed(outs_t, out, shape, block, 1.0f);
  for (std::int64_t c = 0; c < block.rows; c += lanes()) {
    VF delta = hn::Zero(DF());
    for (std::int64_t i = 0; i < shape.head_dim; ++i) {
      const std::int64_t at = i * kRowStride + c;
      delta = hn::MulAdd(load(outs_t + at), load(scratch.douts_t + at), delta);
    }
    store(delta, scratch.delta + c);
  }
}

template <class T>
void load_block(const Scratch& scratch, const Operands<T>& x, const AttentionShape& shape,
                const QueryBlock& block, float scale) {
  constexpr float kLog2e = std::numbers::log2e_v<float>;
  gather_transposed(scratch.queries_t, x.q, shape, block, scale * kLog2e);
  gather_transposed(scratch.douts_t, x.dout, shape, block, 1.0f);
  load_delta(scratch, x.out, shape, block);
  std::fill_n(scratch.dqueries_t, shape.head_dim * kRowStride, 0.0f);
  std::fill_n(scratch.lse, kBlockRows, 0.0f);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t at = r * scratch.row_stride;
    copy_row(scratch.queries + at, row_of(x.q, shape, block, r), shape.head_dim);
    copy_row(scratch.douts + at, row_of(x.dout, shape, block, r), shape.head_dim);
    scratch.lse[r] = kLog2e * x.lse[statistic_of(shape, block, r)];
  }
}

/// From scores and dweights of keys [begin, end): weights = 2^(score - lse), and
/// dscores = weights * (dweights - delta), both in place.
template <bool kMasked>
void differentiate_softmax(const Scratch& scratch, const QueryBlock& block, std::int64_t begin,
                           std::int64_t end) {
  for (std::int64_t c = 0; c < block.rows; c += lanes()) {
    const VI low = hn::LoadU(DI32(), block.low.data() + c);
    const VI high = hn::LoadU(DI32(), block.high.data() + c);
    const VF lse = load(scratch.lse + c), delta = load(scratch.delta + c);
    for (std::int64_t j = begin; j < end; ++j) {
      const std::int64_t at = (j - begin) * kRowStride + c;
      VF weight = exp2_clamped(hn::Sub(load(scratch.weights + at), lse));
      if constexpr (kMasked) weight = hn::IfThenZeroElse(hidden(low, high, j), weight);
      store(weight, scratch.weights + at);
      store(hn::Mul(weight, hn::Sub(load(scratch.dscores + at), delta)), scratch.dscores + at);
    }
  }
}

template <class T>
void backward_block(const Scratch& scratch, const Partial& partial, const Operands<T>& x,
                    const AttentionShape& shape, const QueryBlock& block, float scale) {
  const std::int64_t head_dim = shape.head_dim, stride = scratch.row_stride;
  const std::int64_t cols = round_up_lanes(block.rows);
  load_block(scratch, x, shape, block, scale);
  for (std::int64_t begin = block.first_key; begin < block.end_key; begin += kBlockKeys) {
    const std::int64_t end = std::min(begin + kBlockKeys, block.end_key), keys = end - begin;
    copy_keys(scratch.keys, stride, x.k, shape, block, begin, end);
    copy_keys(scratch.values, stride, x.v, shape, block, begin, end);
    block_matmul<Left::row_major, Store::overwrite>(
        {scratch.weights, kRowStride}, {scratch.keys, stride}, {scratch.queries_t, kRowStride},
        keys, cols, head_dim);
    block_matmul<Left::row_major, Store::overwrite>(
        {scratch.dscores, kRowStride}, {scratch.values, stride}, {scratch.douts_t, kRowStride},
        keys, cols, head_dim);
    if (block.all_see(begin, end)) {
      differentiate_softmax<false>(scratch, block, begin, end);
    } else {
      differentiate_softmax<true>(scratch, block, begin, end);
    }
    block_matmul<Left::row_major, Store::add>({partial.dv + begin * stride, stride},
                                              {scratch.weights, kRowStride},
                                              {scratch.douts, stride}, keys, stride, block.rows);
    block_matmul<Left::row_major, Store::add>({partial.dk + begin * stride, stride},
                                              {scratch.dscores, kRowStride},
                                              {scratch.queries, stride}, keys, stride, block.rows);
    block_matmul<Left::column_major, Store::add>(
        {scratch.dqueries_t, kRowStride}, {scratch.keys, stride}, {scratch.dscores, kRowStride},
        head_dim, cols, keys);
  }
  std::fill_n(scratch.delta, kBlockRows, scale);
  scatter_transposed(x.dq, scratch.dqueries_t, scratch.delta, shape, block);
}

/// The queries of every kv head are cut into segments of whole blocks. One strand walks a segment
/// and owns its dq and its partial sums of dk and dv, which are then added in order: five products
/// a block, with no second pass over the scores, whatever the number of threads.
struct Segments {
  std::int64_t blocks;  // position blocks of one segment, at most
  std::int64_t count;
  std::int64_t first_place;  // of the queries, among the keys
  std::int64_t positions;    // of one segment, at most
  std::int64_t seq;

  explicit Segments(const QueryTiling& tiling)
      : first_place(tiling.shape.seq_keys - tiling.shape.seq), seq(tiling.shape.seq) {
    constexpr std::int64_t kEnoughItems = 16;  // enough to keep threads busy, few enough to store
    const std::int64_t kv_heads = tiling.shape.batch * tiling.shape.num_kv_heads;
    const std::int64_t wanted = (kEnoughItems + kv_heads - 1) / std::max<std::int64_t>(kv_heads, 1);
    blocks = std::max<std::int64_t>(1, (tiling.num_position_blocks + wanted - 1) / wanted);
    count = (tiling.num_position_blocks + blocks - 1) / blocks;
    positions = blocks * tiling.positions;
  }
  /// Keys that a segment sees, which are the rows of its partials.
  std::int64_t keys(std::int64_t segment) const {
    return first_place + std::min((segment + 1) * positions, seq);
  }
  /// Rows of the partials of all segments before this one, which are as long as each other.
  std::int64_t rows_before(std::int64_t segment) const {
    return segment * first_place + positions * segment * (segment + 1) / 2;
  }
  std::int64_t rows() const { return count == 0 ? 0 : rows_before(count - 1) + keys(count - 1); }
  /// The first segment that sees key j.
  std::int64_t first(std::int64_t j) const {
    return std::max<std::int64_t>(j - first_place, 0) / positions;
  }
};

/// d[j] = factor * sum of the segments' partials; segments that end before key j have none, and
/// where there is no query there is no segment.
template <class T>
void add_partials(T* d, const float* partials, const Segments& segments, std::int64_t row_stride,
                  std::int64_t j, std::int64_t head_dim, float factor) {
  const std::int64_t first = segments.first(j);
  const auto row = [&](std::int64_t s) {
    return partials + (segments.rows_before(s) + j) * row_stride;
  };
  for_lanes(head_dim, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    VF sum = first < segments.count ? load(row(first) + i) : hn::Zero(DF());
    for (std::int64_t s = first + 1; s < segments.count; ++s) {
      sum = hn::Add(sum, load(row(s) + i));
    }
    store_n(hn::Mul(sum, hn::Set(DF(), factor)), d + i, n);
  });
}

/// Walks segment `segment` of one kv head: all its query blocks, into zeroed partials.
template <class T>
void backward_segment(const Scratch& scratch, const Partial& partial, const Operands<T>& x,
                      const QueryTiling& tiling, const Segments& segments,
                      const std::int32_t* starts, std::int64_t kv, std::int64_t segment,
                      float scale) {
  const AttentionShape& shape = tiling.shape;
  const std::int64_t first = segment * segments.blocks;
  const std::int64_t last = std::min(first + segments.blocks, tiling.num_position_blocks);
  std::fill_n(partial.dk, segments.keys(segment) * scratch.row_stride, 0.0f);
  std::fill_n(partial.dv, segments.keys(segment) * scratch.row_stride, 0.0f);
  for (std::int64_t p = first; p < last; ++p) {
    for (std::int64_t h = 0; h < tiling.blocks_per_group(); ++h) {
      const QueryBlock block(tiling, starts, kv / shape.num_kv_heads, kv % shape.num_kv_heads, h,
                             p);
      backward_block(scratch, partial, x, shape, block, scale);
    }
  }
}

template <class T>
void backward_typed(Stream& stream, Arena& arena, const Operands<T>& x, const std::int32_t* starts,
                    const AttentionShape& shape, float scale) {
  const QueryTiling tiling(shape);
  const Segments segments(tiling);
  const std::int64_t kv_heads = shape.batch * shape.num_kv_heads;
  const std::int64_t row_stride = round_up_lanes(shape.head_dim);
  const std::int64_t floats = Scratch::floats(shape.head_dim);
  ArenaScope scope(arena);
  float* base = arena.allocate(DType::f32, {stream.num_threads(), floats}).ptr<float>();
  const auto partials = [&] {
    return arena.allocate(DType::f32, {kv_heads, segments.rows(), row_stride}).ptr<float>();
  };
  float* const dk = partials();
  float* const dv = partials();
  parallel_items(stream, kv_heads * segments.count, [&](std::int64_t strand, std::int64_t item) {
    // Late segments see the most keys; they go first, so that the small ones fill the end.
    const std::int64_t segment = segments.count - 1 - item / kv_heads, kv = item % kv_heads;
    const std::int64_t at = (kv * segments.rows() + segments.rows_before(segment)) * row_stride;
    backward_segment(Scratch(base + strand * floats, shape.head_dim), {dk + at, dv + at}, x, tiling,
                     segments, starts, kv, segment, scale);
  });
  constexpr std::int64_t kKeyBlock = 32;
  parallel_blocks(
      stream, kv_heads * shape.seq_keys, kKeyBlock, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n) {
          const std::int64_t kv = n / shape.seq_keys, j = n % shape.seq_keys;
          const std::int64_t from = kv * segments.rows() * row_stride;
          const std::int64_t token = kv / shape.num_kv_heads * shape.seq_keys + j;
          const std::int64_t to =
              (token * shape.num_kv_heads + kv % shape.num_kv_heads) * shape.head_dim;
          add_partials(x.dk + to, dk + from, segments, row_stride, j, shape.head_dim, scale);
          add_partials(x.dv + to, dv + from, segments, row_stride, j, shape.head_dim, 1.0f);
        }
      });
}

void backward(Stream& stream, Arena& arena, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q,
              Tensor k, Tensor v, Tensor out, Tensor lse, Tensor doc_start,
              const AttentionShape& shape, float scale) {
  const std::int32_t* starts = doc_start.present() ? doc_start.ptr<std::int32_t>() : nullptr;
  visit_float(q.dtype(), [&]<class T>(T) {
    const Operands<T> x{.q = q.ptr<T>(),
                        .k = k.ptr<T>(),
                        .v = v.ptr<T>(),
                        .out = out.ptr<T>(),
                        .dout = dout.ptr<T>(),
                        .dq = dq.ptr<T>(),
                        .dk = dk.ptr<T>(),
                        .dv = dv.ptr<T>(),
                        .lse = lse.ptr<float>()};
    backward_typed(stream, arena, x, starts, shape, scale);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(backward);

void attention_backward(Stream& stream, Arena& scratch, Tensor dq, Tensor dk, Tensor dv,
                        Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                        Tensor doc_start, const AttentionShape& shape, float scale) {
  check_document_starts(doc_start, shape);
  HWY_DYNAMIC_DISPATCH(backward)
  (stream, scratch, dq, dk, dv, dout, q, k, v, out, lse, doc_start, shape, scale);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

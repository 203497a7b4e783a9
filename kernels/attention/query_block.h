#pragma once
// How attention cuts its queries into blocks of rows, and which keys the rows of a block see.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/core/parallel.h"

namespace jamba {

/// Rows of one block: (position, head) pairs that read the same kv head.
inline constexpr std::int64_t kBlockRows = 64;
/// Keys that a block looks at in one step.
inline constexpr std::int64_t kBlockKeys = 96;

/// Throws LogicError unless every query sees at least itself.
inline void check_document_starts(Tensor doc_start, const AttentionShape& s) {
  if (doc_start.absent()) return;
  const std::int32_t* start = doc_start.ptr<std::int32_t>();
  std::int64_t documents = 0;
  for (std::int64_t i = 0; i < s.batch * s.seq; ++i) {
    const std::int64_t place = i % s.seq + s.seq_keys - s.seq;
    JAMBA_CHECK(start[i] >= 0 && start[i] <= place,
                "the document of query {} starts at key {}, but its own key is {}", i, start[i],
                place);
    if (i % s.seq == 0 || start[i] != start[i - 1]) ++documents;
  }
  JAMBA_CHECK(s.documents == 0 || documents <= s.documents,
              "the queries lie in {} documents, but the shape says {}", documents, s.documents);
}

/// The cut of one attention call. Query heads that share a kv head share a block where they can:
/// decoding one position then fills vectors with heads, and the causal edge wastes less.
struct QueryTiling {
  AttentionShape shape;
  std::int64_t heads;      // of one block
  std::int64_t positions;  // of one block, at most
  std::int64_t num_position_blocks;

  explicit QueryTiling(const AttentionShape& s) : shape(s) {
    constexpr std::int64_t kMostHeads = 8;
    heads = std::min(group(), kMostHeads);
    while (group() % heads != 0) --heads;
    positions = std::max<std::int64_t>(1, std::min(s.seq, kBlockRows / heads));
    num_position_blocks = (s.seq + positions - 1) / positions;
  }
  /// Query heads of one kv head.
  std::int64_t group() const { return shape.num_heads / shape.num_kv_heads; }
  std::int64_t blocks_per_group() const { return group() / heads; }
};

/// One block: `heads` query heads of one kv head at consecutive positions. Row r is position
/// first_position + r / heads, head first_head + r % heads.
struct QueryBlock {
  std::int64_t batch, kv_head, first_head, heads, first_position, rows;
  /// Keys that any row sees.
  std::int64_t first_key, end_key;
  /// Keys that every row sees.
  std::int64_t first_common_key, end_common_key;
  /// Row r sees keys [low[r], high[r]]. Rows that pad the block repeat row 0.
  std::array<std::int32_t, kBlockRows> low, high;

  QueryBlock(const QueryTiling& tiling, const std::int32_t* doc_start, std::int64_t b,
             std::int64_t kv, std::int64_t head_block, std::int64_t position_block)
      : batch(b),
        kv_head(kv),
        first_head(kv * tiling.group() + head_block * tiling.heads),
        heads(tiling.heads),
        first_position(position_block * tiling.positions) {
    const AttentionShape& s = tiling.shape;
    const std::int64_t positions = std::min(tiling.positions, s.seq - first_position);
    rows = positions * heads;
    first_key = first_position + s.seq_keys - s.seq;
    end_key = first_key + positions;
    end_common_key = first_key + 1;
    first_common_key = 0;
    if (doc_start == nullptr) first_key = 0;
    for (std::int64_t r = 0; r < kBlockRows; ++r) {
      const std::int64_t position = first_position + (r < rows ? r / heads : 0);
      high[r] = static_cast<std::int32_t>(position + s.seq_keys - s.seq);
      low[r] = doc_start == nullptr ? 0 : doc_start[batch * s.seq + position];
      first_key = std::min<std::int64_t>(first_key, low[r]);
      first_common_key = std::max<std::int64_t>(first_common_key, low[r]);
    }
  }

  std::int64_t head(std::int64_t r) const { return first_head + r % heads; }
  std::int64_t position(std::int64_t r) const { return first_position + r / heads; }
  /// Whether every row sees all of keys [begin, end).
  bool all_see(std::int64_t begin, std::int64_t end) const {
    return begin >= first_common_key && end <= end_common_key;
  }
};

/// Calls body(strand, item) for every item, on strands that take the next item when they are free:
/// causal blocks differ in size, so a fixed split would leave threads waiting. Each item writes its
/// own outputs, hence the bits do not depend on who takes it.
template <class Body>
void parallel_items(Stream& stream, std::int64_t num_items, Body&& body) {
  std::atomic<std::int64_t> next{0};
  parallel_blocks(stream, stream.num_threads(), 1, [&](std::int64_t strand, std::int64_t) {
    for (std::int64_t item = next++; item < num_items; item = next++) body(strand, item);
  });
}

}  // namespace jamba

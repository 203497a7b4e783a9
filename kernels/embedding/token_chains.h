#pragma once
#include "kernels/core/memory.h"

namespace jamba {

/// The tokens of each row of an embedding table, as chains in ascending order.
struct TokenChains {
  std::int32_t* next;  // [tokens]: -1 behind the last token of a chain
  std::int32_t* last;  // [tokens]: of the chain that begins here; -1 where none does

  /// Chains of rows [first_id, first_id + rows); other ids and padding_id are in none.
  TokenChains(Arena& scratch, Tensor ids, std::int64_t first_id, std::int64_t rows,
              std::int64_t padding_id)
      : next(integers(scratch, ids.numel())), last(integers(scratch, ids.numel())) {
    std::int32_t* const first = integers(scratch, rows);
    const std::int32_t* const id = ids.ptr<std::int32_t>();
    for (std::int32_t t = 0; t < ids.numel(); ++t) {
      next[t] = last[t] = -1;
      const std::int64_t row = id[t] - first_id;
      if (id[t] == padding_id || row < 0 || row >= rows) continue;
      // first[row] is not cleared, which would cost more than the tokens do: whatever it holds, it
      // is an earlier token of this row only if it was set here.
      const std::int32_t f = first[row];
      if (f >= 0 && f < t && id[f] == id[t]) {
        next[last[f]] = t;
        last[f] = t;
      } else {
        first[row] = last[t] = t;
      }
    }
  }

 private:
  static std::int32_t* integers(Arena& scratch, std::int64_t n) {
    return scratch.allocate(DType::i32, {n}).ptr<std::int32_t>();
  }
};

}  // namespace jamba

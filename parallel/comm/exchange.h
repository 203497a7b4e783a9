#pragma once
// Which bytes go where: an operation as messages between pairs of ranks.

#include <vector>

#include "parallel/comm/operation.h"

namespace jamba {

/// What a rank sends to one other rank and receives from it.
struct Leg {
  std::byte* send = nullptr;
  std::int64_t send_bytes = 0;
  std::byte* receive = nullptr;  // of a reduction: null, a part to be summed
  std::int64_t receive_bytes = 0;
};

/// Legs by rank; this rank's own are empty. The second exchange of a piece follows its first, and
/// for reductions the sum of what came. One that an operation does not need has no legs.
struct Exchange {
  std::vector<Leg> first, second;
  std::byte* sum = nullptr;     // where a reduction's result goes on this rank
  std::byte* addend = nullptr;  // and this rank's own part of it
  std::int64_t sum_bytes = 0;
};
Exchange exchange_of(const Operation&, int rank, int size);

}  // namespace jamba

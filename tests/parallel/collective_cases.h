#pragma once
// What every group must do, whatever carries it. Each check runs on all ranks of a group.

#include <bit>

#include "parallel/comm/communicator.h"

namespace jamba::test {

void check_all_reduce(Communicator&);
void check_start_all_reduce(Communicator&);
void check_all_gather(Communicator&);
void check_broadcast(Communicator&);
void check_same_bits(Communicator&);
void check_agree(Communicator&);
void check_profile(Communicator&);
void check_trace(Communicator&);
void check_refused_arguments(Communicator&);

// operation_cases.cc
/// All sums in the promised order, rounded once: float32, bfloat16, int64.
void check_sums(Communicator&);
/// Sums whose value tells the order in which they were taken.
void check_sum_order(Communicator&);
void check_all_to_all(Communicator&);
void check_gather_in_the_background(Communicator&);
void check_messages(Communicator&);
/// Groups of two axes, with operations in flight on both.
void check_splits(Communicator&);
void check_bytes_sent(Communicator&);

/// A value that depends on the rank and has rounding errors in every sum.
float rank_value(int rank, std::int64_t index);

/// The sum of value(rank) over ranks [first, first + size), in the order that Communicator
/// promises.
template <class Value>
float tree_sum(int first, int size, const Value& value) {
  if (size == 1) return value(first);
  const int left = static_cast<int>(std::bit_floor(static_cast<unsigned>(size - 1)));
  return tree_sum(first, left, value) + tree_sum(first + left, size - left, value);
}

}  // namespace jamba::test

#pragma once
// What a rank asks a group for, in the form in which ranks compare it.

#include "parallel/comm/operation.h"

namespace jamba {

/// Plain data: it travels as bytes.
struct Call {
  OperationKind kind;
  ReduceOp reduce;
  DType dtype;
  int peer;
  std::int64_t count;  // elements that all ranks must agree on; of all_to_all, those of a row
  std::int64_t number;
  char text[104];  // Operation::describe(), cut short if need be, with its zero
};
Call call_of(const Operation&);

/// The rows that a rank expects from each rank, then those it sends to each; zeros but for
/// all_to_all.
std::vector<std::int64_t> call_rows(const Operation&, int size);

/// Why the ranks' calls do not make one collective, naming two of them; empty if they do.
/// Shapes: rows [size, 2 * size], each rank's call_rows.
std::string disagreement(std::span<const Call> calls, std::span<const std::int64_t> rows);

/// The same for a message.
std::string disagreement(const Call& send, int sender, const Call& receive, int receiver);

}  // namespace jamba

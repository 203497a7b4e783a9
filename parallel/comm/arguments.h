#pragma once
// The checks of collective arguments that every kind of group shares.

#include "parallel/comm/communicator.h"

namespace jamba {

const char* reduce_op_name(ReduceOp op);

/// LogicError naming `op` unless the group can take the tensors.
void check_reduce(const char* op, const Tensor& x);
void check_all_gather(const Tensor& out, const Tensor& x, int size);
void check_broadcast(const Tensor& x, int root, int size);

/// Rank r's part of an all_gather's output, as x's dtype and number of elements.
Tensor gathered_slice(const Tensor& out, const Tensor& x, int rank);

}  // namespace jamba

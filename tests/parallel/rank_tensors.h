#pragma once
// Tensors of several ranks, for tests of what lies across them.

#include "parallel/comm/communicator.h"
#include "tests/support/tensors.h"

namespace jamba::test {

/// Whole numbers in [-8, 8), a function of (name, rank): sums and products of them are exact, in
/// bfloat16 too, so that adjoints can be compared for equality.
inline GuardedTensor whole_numbers(DType dtype, const std::vector<std::int64_t>& dims,
                                   const std::string& name, int rank) {
  std::int64_t numel = 1;
  for (const std::int64_t size : dims) numel *= size;
  return {dtype, dims, integer_values(numel, static_cast<std::uint64_t>(rank), name, -8, 8)};
}

/// Sum over ranks of <x, y>, for whole numbers.
inline std::int64_t dot_over_ranks(Communicator& group, const Tensor& x, const Tensor& y) {
  const std::vector<double> a = to_doubles(x), b = to_doubles(y);
  double mine = 0;
  for (std::size_t i = 0; i < a.size(); ++i) mine += a[i] * b[i];
  auto sum = static_cast<std::int64_t>(mine);
  Stream stream = Stream::cpu(1);
  group.all_reduce(stream, Tensor(&sum, DType::i64, {1}));
  return sum;
}

}  // namespace jamba::test

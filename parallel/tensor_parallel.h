#pragma once
// Where the residual stream meets the matrices that tensor-parallel ranks split.

#include "kernels/core/memory.h"
#include "parallel/comm/communicator.h"

namespace jamba {

/// A region is a column-split product, what follows it on a rank's own columns, and a row-split
/// product whose partial sums are added over ranks. Its two ends, forward and backward:
///
///                        enter                       leave
///   forward   plain      -                           all-reduce
///             sequence   all-gather                  reduce-scatter
///   backward  plain      all-reduce                  -
///             sequence   reduce-scatter              all-gather
///
/// Without sequence parallelism every rank holds the residual stream of all tokens; with it
/// (arXiv:2205.05198) rank r of p holds rows [r, r + 1) * rows(tokens), and norms run on those
/// alone. Rows beyond the tokens are zero, forward and backward, so that they add nothing anywhere.
/// Partial sums are float32 whatever the dtype of the stream and the number of ranks, so that each
/// sum is rounded once, on one rank as on many.
class TensorRegion {
 public:
  TensorRegion(Communicator& tp, bool sequence_parallel)
      : tp_(&tp), splits_rows_(sequence_parallel && tp.size() > 1) {}

  Communicator& tp() const { return *tp_; }
  bool splits_rows() const { return splits_rows_; }
  /// Rows of the residual stream on each rank.
  std::int64_t rows(std::int64_t tokens) const {
    return splits_rows_ ? (tokens + tp_->size() - 1) / tp_->size() : tokens;
  }

  /// The rows of all tokens: x itself, or gathered into scratch.
  Tensor gather(Stream&, Arena& scratch, Tensor x, std::int64_t tokens) const;

  /// Memory for a partial sum over all tokens.
  struct Partial {
    Tensor padded;  // [ranks * rows, cols], or [tokens, cols]
    Tensor tokens;  // its first rows, which the region fills
  };
  /// So that reduce makes y of it: y itself, or memory of scratch.
  Partial partial(Stream&, Arena& scratch, Tensor y, std::int64_t tokens) const;
  /// y = this rank's rows of the sum over ranks.
  void reduce(Stream&, Tensor y, const Partial&) const;
  /// The same in two parts: start when the partial sum is there, finish to have y.
  PendingCollective start_reduce(Stream&, const Partial&) const;
  void finish_reduce(Stream&, Tensor y, const Partial&, PendingCollective) const;

 private:
  /// This rank's rows of the sum, float32.
  Tensor own_rows(const Partial&) const;

  Communicator* tp_;
  bool splits_rows_;
};

}  // namespace jamba

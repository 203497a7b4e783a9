#pragma once
// Sums gradients over the data-parallel ranks while backward still runs.

#include <vector>

#include "parallel/comm/communicator.h"

namespace jamba {

/// Cuts a flat gradient buffer into buckets and starts the sum of each as soon as backward is past
/// it. Backward finishes gradients from the end of the buffer to its start. A step is any number
/// of ready_from() and one finish(); then the next step may begin.
/// Shapes: gradients [n], any n. Buckets of bucket_elements are counted from the end, so the last
///   one to start may be smaller.
/// Dtypes: float32.
/// Aliasing: from a bucket's start until finish() returns, nobody else may touch its gradients.
/// Units: the time spent here goes to the stream's profile as Part::communication; it is what
///   overlap did not hide. A group of one does nothing.
/// Errors: LogicError if `offset` is outside the buffer or grows within a step; CommError.
/// Determinism: as all_reduce; the buckets do not depend on when gradients become ready.
class GradientReducer {
 public:
  /// The communicator and the stream must outlive it.
  GradientReducer(Communicator&, Stream&, Tensor gradients, std::int64_t bucket_elements);

  /// All gradients at or above element `offset` are final.
  void ready_from(std::int64_t offset);
  /// All gradients are final; returns when they are summed over all ranks.
  void finish();

 private:
  void start_buckets_above(std::int64_t offset);

  Communicator& group_;
  Stream& stream_;
  Tensor gradients_;
  std::int64_t bucket_elements_;
  std::int64_t unstarted_;  // gradients below this are in no started bucket
  std::int64_t ready_;      // the smallest offset of this step
  std::vector<PendingCollective> started_;
};

}  // namespace jamba

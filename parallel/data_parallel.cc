#include "parallel/data_parallel.h"

#include <algorithm>

#include "kernels/core/profile.h"

namespace jamba {

GradientReducer::GradientReducer(Communicator& group, Stream& stream, Tensor gradients,
                                 std::int64_t bucket_elements)
    : group_(group),
      stream_(stream),
      gradients_(gradients),
      bucket_elements_(bucket_elements),
      unstarted_(gradients.numel()),
      ready_(gradients.numel()) {
  expect_tensor("gradients", gradients, DType::f32, {-1});
  JAMBA_CHECK(bucket_elements > 0, "a bucket needs at least one element, got {}", bucket_elements);
  started_.reserve(
      static_cast<std::size_t>((gradients.numel() + bucket_elements - 1) / bucket_elements));
}

void GradientReducer::ready_from(std::int64_t offset) {
  JAMBA_CHECK(offset >= 0 && offset <= ready_,
              "gradients become final from the end of the buffer to its start: {} after {}", offset,
              ready_);
  ready_ = offset;
  if (group_.size() == 1) return;
  start_buckets_above(offset);
  const ProfileScope timer(stream_.profile(), Part::communication);
  group_.progress();
}

void GradientReducer::finish() {
  ready_ = gradients_.numel();
  if (group_.size() == 1) return;
  start_buckets_above(0);
  for (PendingCollective& bucket : started_) bucket.wait();
  started_.clear();
  unstarted_ = gradients_.numel();
}

void GradientReducer::start_buckets_above(std::int64_t offset) {
  while (unstarted_ > 0) {
    const std::int64_t begin = std::max<std::int64_t>(0, unstarted_ - bucket_elements_);
    if (begin < offset) return;
    const Tensor bucket = gradients_.slice(begin, unstarted_ - begin);
    started_.push_back(group_.start_all_reduce(stream_, bucket, ReduceOp::sum));
    unstarted_ = begin;
  }
}

}  // namespace jamba

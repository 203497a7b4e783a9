#include <deque>

#include "kernels/core/backend.h"
#include "kernels/core/cuda/event.h"
#include "kernels/core/cuda/stream_cuda.h"

namespace jamba::cuda {

namespace {

/// Spans of a stream's work between two events each, which are kept from one time to the next.
class DeviceTimes final : public BackendState, public PartTimer {
 public:
  explicit DeviceTimes(Stream& stream) : stream_(native(stream)) {}

  std::size_t begin(Part part) override {
    if (num_spans_ == spans_.size()) spans_.emplace_back();
    spans_[num_spans_].part = part;
    spans_[num_spans_].begin.record(stream_);
    return num_spans_++;
  }
  void end(std::size_t span) noexcept override { spans_[span].end.try_record(stream_); }

  void clear() { num_spans_ = 0; }
  /// The stream has passed all of them.
  void add_to(Profile& profile) const {
    for (std::size_t i = 0; i < num_spans_; ++i)
      profile[spans_[i].part] += spans_[i].end.seconds_after(spans_[i].begin);
  }

 private:
  struct Span {
    Part part = Part::rest;
    Event begin{Event::Timing::on}, end{Event::Timing::on};
  };

  cudaStream_t stream_;
  std::deque<Span> spans_;
  std::size_t num_spans_ = 0;
};

}  // namespace

void begin_device_times(Stream& stream) {
  auto& times = stream.backend_state<DeviceTimes>();
  times.clear();
  stream.profile().timer = &times;
}

void end_device_times(Stream& stream) {
  stream.profile().timer = nullptr;
  stream.synchronize();
  stream.backend_state<DeviceTimes>().add_to(stream.profile());
}

}  // namespace jamba::cuda

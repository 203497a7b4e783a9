#pragma once
// A place in a stream, which other streams and the host can wait for. Private to the CUDA backend.

#include "kernels/core/cuda/check.h"
#include "kernels/core/cuda/stream_cuda.h"
#include "kernels/core/handle.h"

namespace jamba::cuda {

class Event {
 public:
  /// on: reaching it takes the time, and a little longer.
  enum class Timing { off, on };

  explicit Event(Timing timing = Timing::off) {
    cudaEvent_t event = nullptr;
    JAMBA_CUDA_CHECK(cudaEventCreateWithFlags(
        &event, timing == Timing::on ? cudaEventDefault : cudaEventDisableTiming));
    handle_ = Handle(event);
  }
  /// Marks the end of what was issued to the stream so far. Who waits already keeps the place that
  /// was marked before.
  void record(Stream& stream) { record(native(stream)); }
  void record(cudaStream_t stream) { JAMBA_CUDA_CHECK(cudaEventRecord(handle_.get(), stream)); }
  /// What fails here is for the stream's next call to report.
  void try_record(cudaStream_t stream) noexcept {
    static_cast<void>(cudaEventRecord(handle_.get(), stream));
  }
  void hold_up(Stream& stream) const {
    JAMBA_CUDA_CHECK(cudaStreamWaitEvent(native(stream), handle_.get(), 0));
  }
  bool reached() const {
    const cudaError_t state = cudaEventQuery(handle_.get());
    if (state != cudaErrorNotReady) JAMBA_CUDA_CHECK(state);
    return state == cudaSuccess;
  }
  /// Between two places of one stream that took the time and were reached.
  double seconds_after(const Event& earlier) const {
    float milliseconds = 0;
    JAMBA_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, earlier.handle_.get(), handle_.get()));
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  // A destructor must not throw: what fails here was reported by an earlier call.
  static void destroy(cudaEvent_t event) { static_cast<void>(cudaEventDestroy(event)); }
  using Handle = UniqueHandle<cudaEvent_t, destroy>;

  Handle handle_;
};

}  // namespace jamba::cuda

#pragma once
// A place in a stream, which other streams and the host can wait for. Private to the CUDA backend.

#include "kernels/core/cuda/check.h"
#include "kernels/core/cuda/stream_cuda.h"
#include "kernels/core/handle.h"

namespace jamba::cuda {

class Event {
 public:
  Event() {
    cudaEvent_t event = nullptr;
    JAMBA_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    handle_ = Handle(event);
  }
  /// Marks the end of what was issued to the stream so far. Who waits already keeps the place that
  /// was marked before.
  void record(Stream& stream) { JAMBA_CUDA_CHECK(cudaEventRecord(handle_.get(), native(stream))); }
  void hold_up(Stream& stream) const {
    JAMBA_CUDA_CHECK(cudaStreamWaitEvent(native(stream), handle_.get(), 0));
  }
  bool reached() const {
    const cudaError_t state = cudaEventQuery(handle_.get());
    if (state != cudaErrorNotReady) JAMBA_CUDA_CHECK(state);
    return state == cudaSuccess;
  }

 private:
  // A destructor must not throw: what fails here was reported by an earlier call.
  static void destroy(cudaEvent_t event) { static_cast<void>(cudaEventDestroy(event)); }
  using Handle = UniqueHandle<cudaEvent_t, destroy>;

  Handle handle_;
};

}  // namespace jamba::cuda

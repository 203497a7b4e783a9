// kernels/core/backend.h on the CUDA runtime.

#include <fmt/format.h>

#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/core/cuda/check.h"
#include "kernels/core/cuda/event.h"
#include "kernels/core/cuda/retired_memory.h"
#include "kernels/core/cuda/stream_cuda.h"
#include "kernels/core/handle.h"

namespace jamba::cuda {

namespace {

// Destructors must not throw: what fails here was reported by an earlier call, or the process ends.
void destroy_stream(cudaStream_t stream) { static_cast<void>(cudaStreamDestroy(stream)); }

class NativeStream final : public BackendState {
 public:
  NativeStream(int index, StreamPriority priority) {
    JAMBA_CUDA_CHECK(cudaSetDevice(index));
    JAMBA_CUDA_CHECK(cudaGetDeviceProperties(&properties_, index));
    int lowest = 0, highest = 0;
    JAMBA_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    cudaStream_t stream = nullptr;
    JAMBA_CUDA_CHECK(cudaStreamCreateWithPriority(
        &stream, cudaStreamNonBlocking, priority == StreamPriority::high ? highest : lowest));
    stream_ = Handle(stream);
    end_.emplace();
    RetiredMemory::of_process().add_stream(stream);
  }
  ~NativeStream() override {
    static_cast<void>(cudaStreamSynchronize(stream_.get()));
    RetiredMemory::of_process().remove_stream(stream_.get());
  }

  /// Waits until the stream has nothing left to do.
  void wait() {
    std::erase_if(watchers_, [](const auto& watcher) { return watcher.expired(); });
    while (!watchers_.empty()) {
      const cudaError_t state = cudaStreamQuery(stream_.get());
      if (state == cudaSuccess) break;
      if (state != cudaErrorNotReady) JAMBA_CUDA_CHECK(state);
      look();
      std::this_thread::yield();
    }
    if (watchers_.empty()) JAMBA_CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
    RetiredMemory::of_process().free_if_idle();
  }
  void watch(std::weak_ptr<WaitWatcher> added) {
    for (const auto& watcher : watchers_)
      if (!watcher.owner_before(added) && !added.owner_before(watcher)) return;
    watchers_.push_back(std::move(added));
  }
  cudaStream_t handle() const { return stream_.get(); }
  const cudaDeviceProp& properties() const { return properties_; }
  /// For others to wait for. Waits keep the place that it had at their own call, so one event
  /// serves all of them.
  Event& end() { return *end_; }

 private:
  using Handle = UniqueHandle<cudaStream_t, destroy_stream>;

  void look() {
    try {
      for (const auto& watcher : watchers_) watcher.lock()->look();
    } catch (...) {
      for (const auto& watcher : watchers_) watcher.lock()->give_up();
      throw;
    }
  }

  Handle stream_;
  std::optional<Event> end_;  // made on the device
  cudaDeviceProp properties_{};
  std::vector<std::weak_ptr<WaitWatcher>> watchers_;
};

NativeStream& native_stream(Stream& stream) {
  JAMBA_CHECK(stream.native() != nullptr, "a CPU stream has no CUDA stream");
  return static_cast<NativeStream&>(*stream.native());
}

}  // namespace

void fail_cuda(const char* file, int line, const char* call, cudaError_t error) {
  const std::string message = fmt::format("{}: {} ({}) at {}:{}", call, cudaGetErrorString(error),
                                          cudaGetErrorName(error), file, line);
  if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice ||
      error == cudaErrorNoKernelImageForDevice)
    throw UnsupportedError(message);
  throw LogicError(message);
}

cudaStream_t native(Stream& stream) { return native_stream(stream).handle(); }
const cudaDeviceProp& properties(Stream& stream) { return native_stream(stream).properties(); }

int num_devices(std::string& why) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    why = cudaGetErrorString(error);
    static_cast<void>(cudaGetLastError());  // it would be reported again by the next call
    return 0;
  }
  if (count == 0) why = "the driver shows no device";
  return count;
}

std::string describe_device(int index) {
  cudaDeviceProp properties{};
  JAMBA_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  return fmt::format("{}, {} multiprocessors, {:.1f} GiB", properties.name,
                     properties.multiProcessorCount,
                     static_cast<double>(properties.totalGlobalMem) / (1 << 30));
}

bool can_access_peer(int index, int other) {
  int can = 0;
  JAMBA_CUDA_CHECK(cudaDeviceCanAccessPeer(&can, index, other));
  return can != 0;
}

std::string runtime_version() {
  const auto words = [](int version) {
    return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
  };
  int runtime = 0, driver = 0;
  JAMBA_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  JAMBA_CUDA_CHECK(cudaDriverGetVersion(&driver));
  return fmt::format("CUDA runtime {}, {}", words(runtime),
                     driver > 0 ? "driver for CUDA " + words(driver) : "no driver");
}

void synchronize_device(int index) {
  JAMBA_CUDA_CHECK(cudaSetDevice(index));
  JAMBA_CUDA_CHECK(cudaDeviceSynchronize());
}

void* allocate(int index, std::int64_t bytes, Fill fill) {
  JAMBA_CUDA_CHECK(cudaSetDevice(index));
  void* data = nullptr;
  cudaError_t error = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  if (error == cudaErrorMemoryAllocation && RetiredMemory::of_process().free_all()) {
    static_cast<void>(cudaGetLastError());
    error = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  }
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  JAMBA_CUDA_CHECK(error);
  if (fill == Fill::zeros) {
    const NativeStream stream(index, StreamPriority::normal);
    JAMBA_CUDA_CHECK(cudaMemsetAsync(data, 0, static_cast<std::size_t>(bytes), stream.handle()));
    JAMBA_CUDA_CHECK(cudaStreamSynchronize(stream.handle()));
  }
  return data;
}

void release(int, void* data) noexcept { RetiredMemory::of_process().retire(data); }

void* allocate_pinned(std::int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, static_cast<std::size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  JAMBA_CUDA_CHECK(error);
  return data;
}

void release_pinned(void* data) noexcept { static_cast<void>(cudaFreeHost(data)); }

std::unique_ptr<BackendState> make_stream(int index, StreamPriority priority) {
  return std::make_unique<NativeStream>(index, priority);
}

void watch_waits(Stream& stream, std::weak_ptr<WaitWatcher> watcher) {
  native_stream(stream).watch(std::move(watcher));
}

void synchronize(Stream& stream) { native_stream(stream).wait(); }

void wait_for(Stream& stream, Stream& other) {
  Event& end = native_stream(other).end();
  end.record(other);
  end.hold_up(stream);
}

void copy_bytes(Stream& stream, void* to, const void* from, std::int64_t bytes) {
  if (bytes == 0) return;
  // The runtime returns before the copy where both ends are on the device or pinned; a copy to
  // pageable memory has ended when it returns, so that the wait before it is better ours.
  cudaPointerAttributes target{};
  JAMBA_CUDA_CHECK(cudaPointerGetAttributes(&target, to));
  if (target.type == cudaMemoryTypeUnregistered) native_stream(stream).wait();
  JAMBA_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault,
                                   native(stream)));
}

void fill_bytes(Stream& stream, void* data, int byte, std::int64_t bytes) {
  if (bytes == 0) return;
  JAMBA_CUDA_CHECK(cudaMemsetAsync(data, byte, static_cast<std::size_t>(bytes), native(stream)));
}

}  // namespace jamba::cuda

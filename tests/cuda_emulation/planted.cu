#include "tests/cuda_emulation/planted.h"

#include <cuda_runtime.h>

#include <vector>

#include "kernels/core/cuda/device.cuh"

namespace cuda_emulation::test {

namespace {

constexpr int kThreads = 64;

cudaStream_t make_stream() {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0);
  return stream;
}

template <class T>
T* allocate(int count, bool filled = true) {
  void* data = nullptr;
  cudaMalloc(&data, static_cast<std::size_t>(count) * sizeof(T));
  if (filled) {
    const cudaStream_t stream = make_stream();
    cudaMemsetAsync(data, 0, static_cast<std::size_t>(count) * sizeof(T), stream);
    cudaStreamSynchronize(stream);
  }
  return static_cast<T*>(data);
}

template <class... Params, class... Args>
void run(void (*kernel)(Params...), int blocks, std::size_t shared, Args... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared;
  config.stream = make_stream();
  cudaLaunchKernelEx(&config, kernel, args...);
  cudaStreamSynchronize(config.stream);
}

// --- within a block ---

__global__ void missing_barrier(int* out) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = values[kThreads - 1 - threadIdx.x];
}
__global__ void missing_second_barrier(int* out) {
  __shared__ int value;
  for (int i = 0; i < 4; ++i) {
    if (threadIdx.x == 0) value = i;
    __syncthreads();
    out[threadIdx.x] += value;
  }
}
__global__ void unsafe_increment(int* out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  count += 1;
  __syncthreads();
  if (threadIdx.x == 0) *out = count;
}
__global__ void shuffle_is_no_fence(int* out) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = 1;
  __shfl_xor_sync(0xffffffffu, 1, 1);
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}
__global__ void unwritten_shared(float* out) {
  __shared__ float values[kThreads];
  if (threadIdx.x > 0) values[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}
__global__ void shared_too_small(float* out) {
  JAMBA_DYNAMIC_SHARED(float, values);
  values[threadIdx.x] = 1.0f;
  out[threadIdx.x] = values[threadIdx.x];
}
__global__ void index_outside_array(int* out) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x + static_cast<unsigned>(out[0]) + 1];
}

// --- who waits for whom ---

__global__ void barrier_for_some(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}
__global__ void barrier_after_exit(int* out) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void mask_of_exited_lane(int* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}
__global__ void mask_without_itself(int* out) {
  out[threadIdx.x] = __shfl_xor_sync(0xffff0000u, 1, 1);
}
__global__ void warp_waits_for_barrier(int* out) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  out[threadIdx.x] = 1;
}

// --- global memory ---

__global__ void off_by_one(int* out, int n) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i <= n) out[i] = 1;
}
__global__ void reads_past_the_end(int* out, const int* in, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) out[i] = in[i + 1];
}
__global__ void copies(int* out, const int* in) { out[threadIdx.x] = in[threadIdx.x]; }
__global__ void all_blocks_write(int* out) {
  if (threadIdx.x == 0) *out = static_cast<int>(blockIdx.x);
}
__global__ void reads_other_block(int* out) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  out[i] = out[(i + kThreads) % (kThreads * gridDim.x)];
}
__global__ void misaligned(uint4* out, const int* in) {
  const uint4 values = *jamba::cuda::as_wide<const uint4>(in + 4 * threadIdx.x + 1);
  out[threadIdx.x].x = values.x + values.w;
}

// --- correct ones ---

__global__ void block_sum(int* out, const int* in) {
  __shared__ int warps[kThreads / 32];
  int sum = in[blockIdx.x * kThreads + threadIdx.x];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  int total = 0;
  for (const int warp : warps) total += warp;
  out[blockIdx.x] = total;
}
__global__ void histogram(int* counts, const int* in, int n) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < static_cast<unsigned>(n)) atomicAdd(&counts[in[i] % 8], 1);
}
__global__ void warp_exchange(int* out) {
  JAMBA_DYNAMIC_SHARED(int, values);
  for (int i = 0; i < 3; ++i) {
    values[threadIdx.x] = static_cast<int>(threadIdx.x) + i;
    __syncwarp();
    out[threadIdx.x] += values[threadIdx.x ^ 31];
    __syncwarp();
  }
}
__global__ void half_warps(int* out) {
  const unsigned mask = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  if (threadIdx.x % 32 < 16)
    out[threadIdx.x] = __shfl_xor_sync(mask, static_cast<int>(threadIdx.x), 1);
  out[threadIdx.x] += static_cast<int>(__ballot_sync(0xffffffffu, 1) != 0);
}

void add_after(int* data, int value, cudaStream_t stream);
__global__ void add_kernel(int* data, int value) {
  if (threadIdx.x == 0) *data = *data * 2 + value;
}
void add_after(int* data, int value, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  cudaLaunchKernelEx(&config, add_kernel, data, value);
}

std::vector<int> to_host(const int* data, int count) {
  std::vector<int> out(static_cast<std::size_t>(count));
  cudaMemcpyAsync(out.data(), data, out.size() * sizeof(int), cudaMemcpyDeviceToHost,
                  make_stream());
  return out;
}

}  // namespace

std::vector<Planted> bugs() {
  constexpr bool kChecked = true, kAlways = false;
  return {
      {"missing barrier", [] { run(missing_barrier, 1, 0, allocate<int>(kThreads)); },
       "race|nobody has written", kChecked},
      {"missing second barrier", [] { run(missing_second_barrier, 1, 0, allocate<int>(kThreads)); },
       "race", kChecked},
      {"unsafe increment", [] { run(unsafe_increment, 1, 0, allocate<int>(1)); }, "race", kChecked},
      {"shuffle as a fence", [] { run(shuffle_is_no_fence, 1, 0, allocate<int>(kThreads)); },
       "race", kChecked},
      {"unwritten shared memory", [] { run(unwritten_shared, 1, 0, allocate<float>(kThreads)); },
       "shared memory that nobody has written", kChecked},
      {"dynamic shared memory too small",
       [] { run(shared_too_small, 1, (kThreads - 1) * sizeof(float), allocate<float>(kThreads)); },
       "dynamic shared memory", kChecked},
      {"index outside an array", [] { run(index_outside_array, 1, 0, allocate<int>(kThreads)); },
       "outside its array", kChecked},
      {"divergent barriers", [] { run(barrier_for_some, 1, 0, allocate<int>(kThreads)); },
       "others wait in the one at", kAlways},
      {"barrier after an exit", [] { run(barrier_after_exit, 1, 0, allocate<int>(kThreads)); },
       "have ended|the thread ends", kAlways},
      {"mask of an exited lane", [] { run(mask_of_exited_lane, 1, 0, allocate<int>(kThreads)); },
       "has ended|the thread ends", kAlways},
      {"mask without the lane", [] { run(mask_without_itself, 1, 0, allocate<int>(kThreads)); },
       "does not name the lane itself", kAlways},
      {"deadlock", [] { run(warp_waits_for_barrier, 1, 0, allocate<int>(kThreads)); },
       "no thread can go on", kAlways},
      {"off by one", [] { run(off_by_one, 2, 0, allocate<int>(100), 100); },
       "outside every allocation|before an allocation's end", kChecked},
      {"reads past the end",
       [] {
         run(reads_past_the_end, 1, 0, allocate<int>(kThreads), allocate<int>(kThreads), kThreads);
       },
       "outside every allocation|before an allocation's end", kChecked},
      {"unwritten device memory",
       [] { run(copies, 1, 0, allocate<int>(kThreads), allocate<int>(kThreads, false)); },
       "device memory that nobody has written", kChecked},
      {"memory poisoned with 0xFF",
       [] {
         int* const data = allocate<int>(kThreads);
         const cudaStream_t stream = make_stream();
         cudaMemsetAsync(data, 0xFF, kThreads * sizeof(int), stream);
         cudaStreamSynchronize(stream);
         run(copies, 1, 0, allocate<int>(kThreads), data);
       },
       "device memory that nobody has written", kChecked},
      {"race of blocks", [] { run(all_blocks_write, 2, 0, allocate<int>(1)); }, "race", kChecked},
      {"reads what another block writes",
       [] { run(reads_other_block, 2, 0, allocate<int>(2 * kThreads)); }, "race", kChecked},
      {"misaligned load",
       [] { run(misaligned, 1, 0, allocate<uint4>(kThreads), allocate<int>(4 * kThreads + 8)); },
       "misaligned", kAlways},
      {"host pointer",
       [] {
         static int values[kThreads];
         int* const on_heap = new int[kThreads]{};
         static_cast<void>(values);
         run(copies, 1, 0, allocate<int>(kThreads), on_heap);
       },
       "memory of the host", kChecked},
      {"freed memory",
       [] {
         int* const data = allocate<int>(kThreads);
         const int* const other = allocate<int>(kThreads);
         cudaFree(data);
         run(copies, 1, 0, data, other);
       },
       "outside every allocation", kChecked},
      {"device pointer on the host",
       [] {
         volatile int* const data = allocate<int>(kThreads);
         data[1] = 2;
       },
       "host code touched device memory: byte 4 of an allocation of 256 bytes", kAlways},
      {"freed twice",
       [] {
         int* const data = allocate<int>(kThreads);
         cudaFree(data);
         cudaFree(data);
       },
       "freed before", kAlways},
      {"wrong kind of copy",
       [] {
         int value = 0;
         cudaMemcpyAsync(allocate<int>(1), &value, sizeof value, cudaMemcpyDeviceToDevice,
                         make_stream());
       },
       "wrong kind: it is host to device", kAlways},
      {"copy past the end",
       [] {
         const int values[2] = {};
         cudaMemcpyAsync(allocate<int>(1), values, sizeof values, cudaMemcpyHostToDevice,
                         make_stream());
       },
       "8 bytes from byte 0 of an allocation of 4", kAlways},
      {"fill past the end", [] { cudaMemsetAsync(allocate<int>(1), 0, 5, make_stream()); },
       "5 bytes from byte 0 of an allocation of 4", kAlways},
      {"null stream", [] { add_after(allocate<int>(1), 1, nullptr); }, "the null stream", kAlways},
      {"stream after its end",
       [] {
         int* const data = allocate<int>(1);
         const cudaStream_t stream = make_stream();
         cudaStreamDestroy(stream);
         add_after(data, 1, stream);
       },
       "does not exist, or was destroyed", kAlways},
      {"shared memory without asking",
       [] { run(shared_too_small, 1, (48 << 10) + 1, allocate<float>(kThreads)); },
       "cudaFuncSetAttribute", kAlways},
      {"empty grid", [] { run(copies, 0, 0, allocate<int>(kThreads), allocate<int>(kThreads)); },
       "empty grid", kAlways},
  };
}

std::string run_correct_kernels() {
  constexpr int kBlocks = 5, kCount = kBlocks * kThreads;
  std::vector<int> values(kCount), sums(kBlocks), counts(8);
  for (int i = 0; i < kCount; ++i) {
    values[static_cast<std::size_t>(i)] = i * i % 37;
    sums[static_cast<std::size_t>(i / kThreads)] += i * i % 37;
    ++counts[static_cast<std::size_t>(i * i % 37 % 8)];
  }
  int* const in = allocate<int>(kCount);
  const cudaStream_t stream = make_stream();
  cudaMemcpyAsync(in, values.data(), kCount * sizeof(int), cudaMemcpyDefault, stream);
  cudaStreamSynchronize(stream);
  int* const out = allocate<int>(kCount);
  run(block_sum, kBlocks, 0, out, in);
  if (to_host(out, kBlocks) != sums) return "block_sum";
  int* const bins = allocate<int>(8);
  run(histogram, kBlocks, 0, bins, in, kCount);
  if (to_host(bins, 8) != counts) return "histogram";
  int* const exchanged = allocate<int>(kThreads);
  run(warp_exchange, 1, kThreads * sizeof(int), exchanged);
  const std::vector<int> got = to_host(exchanged, kThreads);
  for (int i = 0; i < kThreads; ++i) {
    if (got[static_cast<std::size_t>(i)] != 3 * (i ^ 31) + 3) return "warp_exchange";
  }
  int* const halves = allocate<int>(kThreads);
  run(half_warps, 1, 0, halves);
  if (to_host(halves, kThreads)[3] != 3) return "half_warps";
  return "";
}

int sum_over_streams(bool waits) {
  int* const data = allocate<int>(1);
  const cudaStream_t first = make_stream(), second = make_stream();
  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  add_after(data, 1, first);
  cudaEventRecord(event, first);
  if (waits) cudaStreamWaitEvent(second, event, 0);
  add_after(data, 5, second);
  cudaDeviceSynchronize();
  return to_host(data, 1)[0];
}

}  // namespace cuda_emulation::test

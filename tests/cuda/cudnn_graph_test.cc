// Whether cuDNN has kernels for the product's attention graphs. Its heuristics and its checks of
// support run on the host, for a device that is only described, so no device is needed; nothing is
// executed. What the descriptions say is from the makers' data sheets.
#include <cuda_runtime.h>
#include <cudnn_frontend.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/attention/attention_graph_cuda.h"

namespace {

int asked_capability = 0;  // major * 10 + minor

}  // namespace

// The C++ interface asks the runtime which device it is for; here there is none to ask.
extern "C" cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
extern "C" cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int /*device*/) {
  *properties = {};
  properties->major = asked_capability / 10;
  properties->minor = asked_capability % 10;
  return cudaSuccess;
}

namespace jamba {
namespace {

struct Gpu {
  const char* name;
  int capability, multiprocessors, shared_bytes_optin, clock_khz;
  std::int64_t l2_bytes, memory_bytes;

  std::string json() const {
    return fmt::format(
        R"({{"deviceVer":{},"driverVer":13000,"cudaDeviceId":0,"maxGridSize":[2147483647,65535,65535],)"
        R"("maxBlockSize":[1024,1024,64],"regsPerBlock":65536,"multiProcessorCount":{},"warpSize":32,)"
        R"("maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":{},)"
        R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"maxCtasPerSM":32,)"
        R"("maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,)"
        R"("supportCoopLaunch":1,"smClockRateKHz":{},"memClockRateKHz":2000000,"l2CacheSize":{},)"
        R"("totalGlobalMem":{},"deviceName":"{}"}})",
        capability * 10, multiprocessors, shared_bytes_optin, clock_khz, l2_bytes, memory_bytes,
        name);
  }
};

constexpr Gpu kA100{"A100", 80, 108, 166912, 1410000, 40 << 20, std::int64_t{80} << 30};
constexpr Gpu kH100{"H100", 90, 132, 232448, 1980000, 50 << 20, std::int64_t{80} << 30};
constexpr Gpu kB200{"B200", 100, 148, 232448, 1965000, 126 << 20, std::int64_t{180} << 30};

/// Empty, or why cuDNN has no kernel.
std::string refusal(const Gpu& gpu, cuda::Direction direction, const AttentionShape& shape,
                    std::int64_t segments) {
  asked_capability = gpu.capability;
  const std::string json = gpu.json();
  auto device = std::make_shared<cudnn_frontend::DeviceProperties>();
  auto status = device->deserialize({json.begin(), json.end()});
  if (status.is_bad()) return "describing the device: " + status.get_message();
  const auto graph = cuda::make_attention_graph(direction, shape, segments, 0.125f);
  graph->set_device_properties(device);
  graph->set_sm_version(gpu.capability);
  for (const auto& step :
       {+[](cudnn_frontend::graph::Graph& g) { return g.validate(); },
        +[](cudnn_frontend::graph::Graph& g) { return g.build_operation_graph(); },
        +[](cudnn_frontend::graph::Graph& g) {
          return g.create_execution_plans({cudnn_frontend::HeurMode_t::A});
        },
        +[](cudnn_frontend::graph::Graph& g) { return g.check_support(); }}) {
    status = step(*graph);
    if (status.is_bad()) return "cuDNN: " + status.get_message();
  }
  return {};
}

AttentionShape shape_of(std::int64_t batch, std::int64_t seq, std::int64_t seq_keys,
                        std::int64_t head_dim) {
  return {.batch = batch,
          .seq = seq,
          .seq_keys = seq_keys,
          .num_heads = 8,
          .num_kv_heads = 2,
          .head_dim = head_dim};
}

using cuda::Direction;

TEST(CudnnGraph, WholeSequencesHaveKernels) {
  for (const Gpu& gpu : {kA100, kH100, kB200}) {
    for (const std::int64_t head_dim : {64, 128}) {
      for (const Direction direction : {Direction::forward, Direction::backward}) {
        EXPECT_EQ(refusal(gpu, direction, shape_of(2, 4096, 4096, head_dim), 0), "")
            << gpu.name << ", heads of " << head_dim << ", " << static_cast<int>(direction);
      }
    }
  }
}

TEST(CudnnGraph, TheLastQueriesOfLongerKeysHaveKernels) {
  for (const Gpu& gpu : {kA100, kH100, kB200}) {
    for (const Direction direction : {Direction::forward, Direction::backward})
      EXPECT_EQ(refusal(gpu, direction, shape_of(1, 4096, 16384, 128), 0), "") << gpu.name;
  }
}

TEST(CudnnGraph, PackedDocumentsHaveKernels) {
  for (const Gpu& gpu : {kA100, kH100, kB200}) {
    for (const std::int64_t keys : {4096, 16384}) {
      EXPECT_EQ(refusal(gpu, Direction::forward, shape_of(2, 4096, keys, 128), 16), "") << gpu.name;
      // A100 sums packed gradients in any order only, so our own kernels make them.
      const bool none = gpu.capability < 90;
      EXPECT_EQ(refusal(gpu, Direction::backward, shape_of(2, 4096, keys, 128), 16) != "", none)
          << gpu.name;
    }
  }
}

TEST(CudnnGraph, HeadsThatAreNoMultipleOf8HaveNone) {
  for (const Gpu& gpu : {kA100, kH100, kB200})
    EXPECT_NE(refusal(gpu, Direction::forward, shape_of(2, 4096, 4096, 100), 0), "") << gpu.name;
}

}  // namespace
}  // namespace jamba

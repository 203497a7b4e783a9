#include "kernels/core/cuda/reduce.cuh"
#include "kernels/mamba/selective_scan.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;

/// first_document[batch, part]: the first step of the part's that begins a document; seq if none
/// does. A block each.
__global__ void __launch_bounds__(kThreads)
    find_documents_kernel(std::int32_t* first_document, const std::int32_t* doc_start, Index seq,
                          Index steps) {
  __shared__ int least_of_warps[kWarps];
  const Index part = blockIdx.x, batch = blockIdx.y;
  const Index end = (part + 1) * steps < seq ? (part + 1) * steps : seq;
  int least = static_cast<int>(seq);
  for (Index t = part * steps + threadIdx.x; t < end; t += kThreads) {
    if (doc_start[batch * seq + t] != static_cast<int>(t)) continue;
    least = static_cast<int>(t);
    break;
  }
  least = warp_min(least);
  if (threadIdx.x % kWarp == 0) least_of_warps[threadIdx.x / kWarp] = least;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  least = warp_min(least_of_warps[threadIdx.x]);
  if (threadIdx.x == 0) first_document[batch * gridDim.x + part] = least;
}

}  // namespace

ScanParts ScanParts::of(Stream& stream, Arena& scratch, const SelectiveScanInputs& in,
                        const ScanPlan& plan, int warps_a_processor) {
  const Index wanted = Index{properties(stream).multiProcessorCount} * warps_a_processor;
  const Index have = plan.batch * ceil_div(plan.inner, kChannelLanes);
  if (in.doc_start.absent() || have == 0 || have >= wanted) return {nullptr};
  const Index most = plan.seq / kScanChunk;
  const Index count = ceil_div(wanted, have) < most ? ceil_div(wanted, have) : most;
  if (count < 2) return {nullptr};
  auto* const first = scratch.allocate(DType::i32, {plan.batch, count}).ptr<std::int32_t>();
  launch<kThreads>(stream, find_documents_kernel, {count, plan.batch}, 0, first,
                   in.doc_start.ptr<std::int32_t>(), plan.seq, ceil_div(plan.seq, count));
  return {first, static_cast<int>(count)};
}

}  // namespace jamba::cuda

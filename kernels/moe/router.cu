// A warp a token: some dozen numbers each, so launches and latency decide, not bytes.

#include "kernels/moe/router.h"

#include "kernels/core/cuda/add_parts.cuh"
#include "kernels/core/cuda/reduce.cuh"
#include "kernels/core/philox.h"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

/// The token of this warp, or one past the last.
__device__ __forceinline__ Index warp_token() {
  return static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
}
Index blocks_for(Index tokens) { return ceil_div(tokens, kWarps); }

struct Choice {
  float prob;
  int expert;
};

/// The order of choice: the larger probability, then the lower expert; NaN is larger than nothing.
__device__ __forceinline__ bool before(const Choice& a, const Choice& b) {
  return a.prob > b.prob || (!(b.prob > a.prob) && a.expert < b.expert);
}

__global__ void __launch_bounds__(kThreads)
    forward_kernel(float* probs, std::int32_t* index, float* weight, const float* logits,
                   Index tokens, int experts, int k, bool renormalize) {
  const Index t = warp_token();
  if (t >= tokens) return;
  const int lane = threadIdx.x % kWarp;
  const float* const x = logits + t * experts;
  float* const p = probs + t * experts;
  float max = -3.402823466e38f;
  for (int e = lane; e < experts; e += kWarp) max = fmaxf(max, x[e]);
  max = warp_max(max);
  float sum = 0.0f;
  for (int e = lane; e < experts; e += kWarp) {
    const float value = exp_approx(x[e] - max);
    p[e] = value;
    sum += value;
  }
  const float inverse = 1.0f / warp_sum(sum);
  for (int e = lane; e < experts; e += kWarp) p[e] *= inverse;

  // Each round takes the first in the order of choice behind the one that the last round took.
  Choice last = {0.0f, -1};
  float total = 0.0f;
  for (int slot = 0; slot < k; ++slot) {
    Choice best = {0.0f, experts};  // no expert yet
    for (int e = lane; e < experts; e += kWarp) {
      const Choice mine = {p[e], e};
      const bool free = slot == 0 || before(last, mine);
      if (free && (best.expert == experts || before(mine, best))) best = mine;
    }
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const Choice other = {__shfl_xor_sync(kAllLanes, best.prob, step),
                            __shfl_xor_sync(kAllLanes, best.expert, step)};
      if (other.expert < experts && (best.expert == experts || before(other, best))) best = other;
    }
    last = best;
    total += best.prob;
    if (lane == 0) {
      index[t * k + slot] = best.expert;
      weight[t * k + slot] = best.prob;
    }
  }
  if (!renormalize || lane > 0) return;
  for (int slot = 0; slot < k; ++slot) weight[t * k + slot] /= total;
}

/// logsumexp of a row from its first choice.
__device__ __forceinline__ float row_lse(const float* probs, int expert, const float* logits) {
  return logits[expert] - logf(probs[expert]);
}

__global__ void __launch_bounds__(kThreads)
    backward_kernel(float* dlogits, const float* dweight, const float* dprobs, const float* probs,
                    const std::int32_t* index, const float* logits, Index tokens, int experts,
                    int k, bool renormalize, float z_scale) {
  const Index t = warp_token();
  if (t >= tokens) return;
  const int lane = threadIdx.x % kWarp;
  const float* const p = probs + t * experts;
  const std::int32_t* const chosen = index + t * k;
  const float* const dw = dweight + t * k;
  float sum = 1.0f, pull = 0.0f;
  if (renormalize) {  // w = p / sum: dp = (dw - <dw, w>) / sum
    sum = 0.0f;
    for (int slot = 0; slot < k; ++slot) sum += p[chosen[slot]];
    for (int slot = 0; slot < k; ++slot) pull += dw[slot] * (p[chosen[slot]] / sum);
  }
  const auto gradient = [&](int e) {  // towards the probability
    float d = dprobs != nullptr ? dprobs[e] : 0.0f;
    for (int slot = 0; slot < k; ++slot) {
      if (chosen[slot] == e) d += (dw[slot] - pull) / sum;
    }
    return d;
  };
  float dot = 0.0f;
  for (int e = lane; e < experts; e += kWarp) dot = fmaf(p[e], gradient(e), dot);
  float shift = -warp_sum(dot);
  if (z_scale != 0.0f) shift += 2.0f * z_scale * row_lse(p, chosen[0], logits + t * experts);
  for (int e = lane; e < experts; e += kWarp)
    dlogits[t * experts + e] = p[e] * (gradient(e) + shift);
}

/// Tokens that one block of the statistics sums.
constexpr int kTokenBlock = 64;

/// parts [blocks, experts + 1]: sums of each expert's probability, then of squared logsumexps.
/// Dynamic shared memory: experts ints.
__global__ void __launch_bounds__(kThreads)
    statistics_kernel(float* parts, unsigned long long* counts, const float* probs,
                      const std::int32_t* index, const float* logits, Index tokens, int experts,
                      int k) {
  JAMBA_DYNAMIC_SHARED(int, chosen);
  __shared__ float squares[kTokenBlock];
  for (int e = threadIdx.x; e < experts; e += kThreads) chosen[e] = 0;
  __syncthreads();
  const Index begin = static_cast<Index>(blockIdx.x) * kTokenBlock;
  const Index end = begin + kTokenBlock < tokens ? begin + kTokenBlock : tokens;
  float* const part = parts + static_cast<Index>(blockIdx.x) * (experts + 1);
  for (Index i = begin * k + threadIdx.x; i < end * k; i += kThreads)
    atomicAdd(&chosen[index[i]], 1);
  for (Index t = begin + threadIdx.x; t < end; t += kThreads) {
    const float lse = row_lse(probs + t * experts, index[t * k], logits + t * experts);
    squares[t - begin] = lse * lse;
  }
  for (int e = threadIdx.x; e < experts; e += kThreads) {
    float sum = 0.0f;
    for (Index t = begin; t < end; ++t) sum += probs[t * experts + e];
    part[e] = sum;
  }
  __syncthreads();
  for (int e = threadIdx.x; e < experts; e += kThreads)
    atomicAdd(&counts[e], static_cast<unsigned long long>(chosen[e]));
  if (threadIdx.x > 0) return;
  float sum = 0.0f;
  for (Index t = begin; t < end; ++t) sum += squares[t - begin];
  part[experts] = sum;
}

__global__ void __launch_bounds__(kThreads)
    jitter_kernel(float* logits, Index tokens, int experts, float amount, std::uint64_t seed,
                  std::uint64_t rng_stream, Index first_row) {
  constexpr int kGroup = 4;  // experts that one call of the generator serves
  const Index groups = ceil_div(experts, kGroup);
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= tokens * groups) return;
  const Index t = i / groups, g = i % groups;
  const auto counter = static_cast<std::uint64_t>(((first_row + t) << 16) + g);
  const PhiloxWords random = philox_words(seed, rng_stream, counter);
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    const Index e = g * kGroup + j;
    if (e >= experts) return;
    const float noise = static_cast<float>(static_cast<std::int32_t>(random.word[j])) * 0x1p-31f;
    logits[t * experts + e] *= 1.0f + amount * noise;
  }
}

__global__ void __launch_bounds__(kThreads)
    balance_kernel(std::int32_t* index, float* weight, const float* probs, Index tokens,
                   int experts, int k, Index first_row, bool renormalize) {
  const Index t = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= tokens) return;
  float sum = 0.0f;
  for (int slot = 0; slot < k; ++slot) {
    const auto expert = static_cast<std::int32_t>(((first_row + t) * k + slot) % experts);
    index[t * k + slot] = expert;
    weight[t * k + slot] = probs[t * experts + expert];
    sum += probs[t * experts + expert];
  }
  for (int slot = 0; renormalize && slot < k; ++slot) weight[t * k + slot] /= sum;
}

}  // namespace

void router_forward(Stream& stream, Tensor probs, Tensor index, Tensor weight, Tensor logits,
                    bool renormalize) {
  launch<kThreads>(stream, forward_kernel, {blocks_for(logits.rows())}, 0, probs.ptr<float>(),
                   index.ptr<std::int32_t>(), weight.ptr<float>(), logits.ptr<float>(),
                   logits.rows(), static_cast<int>(logits.cols()), static_cast<int>(index.cols()),
                   renormalize);
}

void router_backward(Stream& stream, Tensor dlogits, Tensor dweight, Tensor dprobs, Tensor probs,
                     Tensor index, Tensor logits, bool renormalize, float z_scale) {
  launch<kThreads>(stream, backward_kernel, {blocks_for(logits.rows())}, 0, dlogits.ptr<float>(),
                   dweight.ptr<float>(), dprobs.ptr<float>(), probs.ptr<float>(),
                   index.ptr<std::int32_t>(), logits.ptr<float>(), logits.rows(),
                   static_cast<int>(logits.cols()), static_cast<int>(index.cols()), renormalize,
                   z_scale);
}

void router_statistics(Stream& stream, Arena& scratch, Tensor prob_sum, Tensor counts, Tensor z_sum,
                       Tensor probs, Tensor index, Tensor logits) {
  const std::int64_t tokens = logits.rows(), experts = logits.cols();
  const std::int64_t blocks = ceil_div(tokens, kTokenBlock);
  const ArenaScope scope(scratch);
  float* const parts = scratch.allocate(DType::f32, {blocks, experts + 1}).ptr<float>();
  launch<kThreads>(stream, statistics_kernel, {blocks},
                   static_cast<std::size_t>(experts) * sizeof(int), parts,
                   reinterpret_cast<unsigned long long*>(counts.ptr<std::int64_t>()),
                   probs.ptr<float>(), index.ptr<std::int32_t>(), logits.ptr<float>(), tokens,
                   static_cast<int>(experts), static_cast<int>(index.cols()));
  add_parts(stream, prob_sum.ptr<float>(), parts, blocks, experts, experts + 1);
  add_parts(stream, z_sum.ptr<float>(), parts + experts, blocks, 1, experts + 1);
}

void router_jitter(Stream& stream, Tensor logits, float amount, std::uint64_t seed,
                   std::uint64_t rng_stream, std::int64_t first_row) {
  const Index groups = logits.rows() * ceil_div(logits.cols(), 4);
  launch<kThreads>(stream, jitter_kernel, {ceil_div(groups, kThreads)}, 0, logits.ptr<float>(),
                   logits.rows(), static_cast<int>(logits.cols()), amount, seed, rng_stream,
                   first_row);
}

void balance_routing(Stream& stream, Tensor index, Tensor weight, Tensor probs,
                     std::int64_t first_row, bool renormalize) {
  launch<kThreads>(stream, balance_kernel, {ceil_div(probs.rows(), kThreads)}, 0,
                   index.ptr<std::int32_t>(), weight.ptr<float>(), probs.ptr<float>(), probs.rows(),
                   static_cast<int>(probs.cols()), static_cast<int>(index.cols()), first_row,
                   renormalize);
}

}  // namespace jamba::cuda

// Bytes bound: a block a token; forward reads its logits once, backward reads and writes them once.

#include "kernels/loss/cross_entropy.h"

#include "kernels/core/cuda/launch.cuh"
#include "kernels/core/cuda/reduce.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 256;
constexpr float kLowest = -3.402823466e38f;

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(float* stats, const T* logits, const std::int32_t* labels, Index vocab,
                   Index first_id) {
  const Index token = blockIdx.x;
  const T* const row = logits + token * vocab;
  // Begins at the lowest finite value, not -inf: logits of -inf alone add exp(-inf), not exp(NaN).
  float max = kLowest, sum = 0.0f;
  for (Index i = threadIdx.x * N; i < vocab; i += kThreads * N) {
    float v[N];
    load_pack(v, row + i);
    float most = max;
#pragma unroll
    for (int j = 0; j < N; ++j) most = fmaxf(most, v[j]);
    sum *= exp_approx(max - most);
    max = most;
#pragma unroll
    for (int j = 0; j < N; ++j) sum += exp_approx(v[j] - max);
  }
  __shared__ BlockReduction<kThreads> shared_max, shared_sum;
  const float most = block_max(max, shared_max);
  const float total = block_sum(sum * exp_approx(max - most), shared_sum);
  if (threadIdx.x > 0) return;
  const Index column = labels[token] - first_id;  // kIgnoreLabel is below every first_id
  float* const to = stats + token * kCrossEntropyStats;
  to[0] = most;
  to[1] = total;
  to[2] = column >= 0 && column < vocab ? to_float(row[column]) : 0.0f;
}

__global__ void __launch_bounds__(kThreads)
    combine_kernel(float* loss, float* lse, const float* stats_of_all, const std::int32_t* labels,
                   Index tokens, int ranks) {
  const Index token = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (token >= tokens) return;
  const auto stats = [&](int rank) {
    return stats_of_all + (rank * tokens + token) * kCrossEntropyStats;
  };
  float max = kLowest, sum = 0.0f, target = 0.0f;
  for (int rank = 0; rank < ranks; ++rank) max = fmaxf(max, stats(rank)[0]);
  for (int rank = 0; rank < ranks; ++rank) {
    sum += stats(rank)[1] * exp_approx(stats(rank)[0] - max);
    target += stats(rank)[2];
  }
  const float log_sum = logf(sum);
  lse[token] = max + log_sum;
  // max - target first: it is exact where lse would have rounded the digits away.
  loss[token] = labels[token] == kIgnoreLabel ? 0.0f : max - target + log_sum;
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(T* logits, const float* lse, const std::int32_t* labels, Index vocab,
                    Index first_id, float scale) {
  const Index token = blockIdx.x;
  T* const row = logits + token * vocab;
  const bool ignored = labels[token] == kIgnoreLabel;
  const Index column = labels[token] - first_id;
  const float shift = lse[token];
  for (Index i = threadIdx.x * N; i < vocab; i += kThreads * N) {
    float v[N];
    load_pack(v, row + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      // The label's probability is near 1 late in training: expm1 keeps the digits of p - 1.
      const float x = v[j] - shift;
      v[j] = ignored ? 0.0f : scale * (i + j == column ? expm1f(x) : exp_approx(x));
    }
    store_pack(row + i, v);
  }
}

}  // namespace

void cross_entropy_forward(Stream& stream, Tensor stats, Tensor logits, Tensor labels,
                           std::int64_t first_id, std::int64_t) {
  visit_float(logits.dtype(), [&]<class T>(T) {
    visit_pack<16 / sizeof(T)>(
        logits.cols(),
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, forward_kernel<T, N>, {logits.rows()}, 0, stats.ptr<float>(),
                           logits.ptr<T>(), labels.ptr<std::int32_t>(), logits.cols(), first_id);
        },
        logits.ptr<T>());
  });
}

void cross_entropy_combine(Stream& stream, Tensor loss, Tensor lse, Tensor stats_of_all,
                           Tensor labels) {
  launch<kThreads>(stream, combine_kernel, {ceil_div(labels.numel(), kThreads)}, 0,
                   loss.ptr<float>(), lse.ptr<float>(), stats_of_all.ptr<float>(),
                   labels.ptr<std::int32_t>(), labels.numel(),
                   static_cast<int>(stats_of_all.dim(0)));
}

void cross_entropy_backward(Stream& stream, Tensor logits, Tensor lse, Tensor labels,
                            std::int64_t first_id, float scale) {
  visit_float(logits.dtype(), [&]<class T>(T) {
    visit_pack<16 / sizeof(T)>(
        logits.cols(),
        [&]<int N>(std::integral_constant<int, N>) {
          launch<kThreads>(stream, backward_kernel<T, N>, {logits.rows()}, 0, logits.ptr<T>(),
                           lse.ptr<float>(), labels.ptr<std::int32_t>(), logits.cols(), first_id,
                           scale);
        },
        logits.ptr<T>());
  });
}

}  // namespace jamba::cuda

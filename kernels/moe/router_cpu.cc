#include "kernels/moe/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/parallel.h"
#include "kernels/core/rng.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/moe/router_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Tokens that one partial of the statistics sums; also the unit of parallel work.
constexpr std::int64_t kTokenBlock = 64;

void softmax_row(float* probs, const float* logits, std::int64_t experts) {
  float max = std::numeric_limits<float>::lowest();
  for (std::int64_t e = 0; e < experts; ++e) max = std::max(max, logits[e]);
  const VF shift = hn::Set(DF(), max);
  for_lanes(experts, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    store_n(exp(hn::Sub(load_n(logits + i, n), shift)), probs + i, n);
  });
  float sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) sum += probs[e];
  const float inverse = 1.0f / sum;
  for (std::int64_t e = 0; e < experts; ++e) probs[e] *= inverse;
}

/// Insertion into the sorted outputs. A later expert passes an earlier one only if it is strictly
/// larger; the first k enter unconditionally, so that NaN probabilities still give valid indices.
void select_row(std::int32_t* index, float* weight, const float* probs, std::int64_t experts,
                std::int64_t k) {
  for (std::int64_t e = 0; e < experts; ++e) {
    if (e >= k && !(probs[e] > weight[k - 1])) continue;
    std::int64_t place = std::min(e, k - 1);
    for (; place > 0 && probs[e] > weight[place - 1]; --place) {
      weight[place] = weight[place - 1];
      index[place] = index[place - 1];
    }
    weight[place] = probs[e];
    index[place] = static_cast<std::int32_t>(e);
  }
}

void forward(Stream& stream, Tensor probs, Tensor index, Tensor weight, Tensor logits,
             bool renormalize) {
  const std::int64_t experts = logits.cols(), k = index.cols();
  parallel_blocks(stream, logits.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* p = probs.ptr<float>() + t * experts;
      float* w = weight.ptr<float>() + t * k;
      softmax_row(p, logits.ptr<float>() + t * experts, experts);
      select_row(index.ptr<std::int32_t>() + t * k, w, p, experts, k);
      if (!renormalize) continue;
      float sum = 0;
      for (std::int64_t s = 0; s < k; ++s) sum += w[s];
      for (std::int64_t s = 0; s < k; ++s) w[s] /= sum;
    }
  });
}

/// logsumexp of a row from its largest probability, which lies in [1/experts, 1].
float row_lse(const float* probs, std::int32_t largest, const float* logits) {
  return logits[largest] - std::log(probs[largest]);
}

/// Adds the gradient of the k weights to the gradient of all probabilities.
void scatter_weights(float* gradient, const float* dweight, const float* probs,
                     const std::int32_t* index, std::int64_t k, bool renormalize) {
  float sum = 1, pull = 0;
  if (renormalize) {  // w = p / sum: dp = (dw - <dw, w>) / sum
    sum = 0;
    for (std::int64_t s = 0; s < k; ++s) sum += probs[index[s]];
    for (std::int64_t s = 0; s < k; ++s) pull += dweight[s] * (probs[index[s]] / sum);
  }
  for (std::int64_t s = 0; s < k; ++s) gradient[index[s]] += (dweight[s] - pull) / sum;
}

void backward(Stream& stream, Tensor dlogits, Tensor dweight, Tensor dprobs, Tensor probs,
              Tensor index, Tensor logits, bool renormalize, float z_scale) {
  const std::int64_t experts = logits.cols(), k = index.cols();
  parallel_blocks(stream, logits.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* d = dlogits.ptr<float>() + t * experts;
      const float* p = probs.ptr<float>() + t * experts;
      const std::int32_t* chosen = index.ptr<std::int32_t>() + t * k;
      if (dprobs.present()) {
        std::copy_n(dprobs.ptr<float>(), experts, d);
      } else {
        std::fill_n(d, experts, 0.0f);
      }
      scatter_weights(d, dweight.ptr<float>() + t * k, p, chosen, k, renormalize);
      float shift = 0;
      for (std::int64_t e = 0; e < experts; ++e) shift -= p[e] * d[e];
      if (z_scale != 0) {
        shift += 2 * z_scale * row_lse(p, chosen[0], logits.ptr<float>() + t * experts);
      }
      for (std::int64_t e = 0; e < experts; ++e) d[e] = p[e] * (d[e] + shift);
    }
  });
}

void statistics(Stream& stream, Arena& scratch, Tensor prob_sum, Tensor counts, Tensor z_sum,
                Tensor probs, Tensor index, Tensor logits) {
  const std::int64_t tokens = logits.rows(), experts = logits.cols(), k = index.cols();
  const std::int64_t num_blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
  ArenaScope scope(scratch);
  // One row a block: its sum of each expert's probability, then of squared logsumexps.
  float* partials = scratch.allocate(DType::f32, {num_blocks, experts + 1}).ptr<float>();
  const std::int32_t* chosen = index.ptr<std::int32_t>();
  parallel_blocks(stream, tokens, kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
    float* partial = partials + begin / kTokenBlock * (experts + 1);
    std::fill_n(partial, experts + 1, 0.0f);
    for (std::int64_t t = begin; t < end; ++t) {
      const float* p = probs.ptr<float>() + t * experts;
      for (std::int64_t e = 0; e < experts; ++e) partial[e] += p[e];
      const float lse = row_lse(p, chosen[t * k], logits.ptr<float>() + t * experts);
      partial[experts] += lse * lse;
    }
  });
  for (std::int64_t b = 0; b < num_blocks; ++b) {
    const float* partial = partials + b * (experts + 1);
    for (std::int64_t e = 0; e < experts; ++e) prob_sum.ptr<float>()[e] += partial[e];
    z_sum.ptr<float>()[0] += partial[experts];
  }
  std::int64_t* count = counts.ptr<std::int64_t>();
  for (std::int64_t i = 0; i < tokens * k; ++i) ++count[chosen[i]];
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);
HWY_EXPORT(statistics);

namespace {

void check_index(Tensor index, std::int64_t experts) {
  const std::int32_t* chosen = index.ptr<std::int32_t>();
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    JAMBA_CHECK(chosen[i] >= 0 && chosen[i] < experts, "expert {} of token {}, out of {} experts",
                chosen[i], i / index.cols(), experts);
  }
}

}  // namespace

void router_forward(Stream& stream, Tensor probs, Tensor index, Tensor weight, Tensor logits,
                    bool renormalize) {
  HWY_DYNAMIC_DISPATCH(forward)(stream, probs, index, weight, logits, renormalize);
}

void router_backward(Stream& stream, Tensor dlogits, Tensor dweight, Tensor dprobs, Tensor probs,
                     Tensor index, Tensor logits, bool renormalize, float z_scale) {
  check_index(index, logits.cols());
  HWY_DYNAMIC_DISPATCH(backward)
  (stream, dlogits, dweight, dprobs, probs, index, logits, renormalize, z_scale);
}

void router_statistics(Stream& stream, Arena& scratch, Tensor prob_sum, Tensor counts, Tensor z_sum,
                       Tensor probs, Tensor index, Tensor logits) {
  check_index(index, logits.cols());
  HWY_DYNAMIC_DISPATCH(statistics)
  (stream, scratch, prob_sum, counts, z_sum, probs, index, logits);
}

void router_jitter(Stream& stream, Tensor logits, float amount, std::uint64_t seed,
                   std::uint64_t rng_stream, std::int64_t first_row) {
  constexpr std::int64_t kGroup = 4, kTokenBlock = 64;  // one Philox call serves four experts
  const std::int64_t experts = logits.cols(), groups = (experts + kGroup - 1) / kGroup;
  float* all = logits.ptr<float>();
  parallel_blocks(stream, logits.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t g = 0; g < groups; ++g) {
        const auto counter = static_cast<std::uint64_t>(((first_row + t) << 16) + g);
        const auto words = philox(seed, rng_stream, counter);
        const std::int64_t first = g * kGroup, last = std::min(experts, first + kGroup);
        for (std::int64_t e = first; e < last; ++e) {
          const auto word = static_cast<std::int32_t>(words[static_cast<std::size_t>(e - first)]);
          const float noise = static_cast<float>(word) * 0x1p-31f;  // [-1, 1]
          all[t * experts + e] *= 1.0f + amount * noise;
        }
      }
    }
  });
}

void balance_routing(Stream&, Tensor index, Tensor weight, Tensor probs, std::int64_t first_row,
                     bool renormalize) {
  const std::int64_t experts = probs.cols(), k = index.cols();
  for (std::int64_t t = 0; t < probs.rows(); ++t) {
    std::int32_t* chosen = index.ptr<std::int32_t>() + t * k;
    float* weights = weight.ptr<float>() + t * k;
    float sum = 0;
    for (std::int64_t slot = 0; slot < k; ++slot) {
      chosen[slot] = static_cast<std::int32_t>(((first_row + t) * k + slot) % experts);
      weights[slot] = probs.ptr<float>()[t * experts + chosen[slot]];
      sum += weights[slot];
    }
    for (std::int64_t slot = 0; renormalize && slot < k; ++slot) weights[slot] /= sum;
  }
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

#include "kernels/loss/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/loss/cross_entropy_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Tokens a unit of parallel work.
constexpr std::int64_t kTokenBlock = 4;
/// Logits between two looks at the running maximum: small enough for the second look to hit the
/// first-level cache, so that a row is read from memory once.
constexpr std::int64_t kChunk = 1024;

struct RowStatistics {
  float max;
  float sum;  // of exp(logit - max)
};

/// A NaN logit makes the sum NaN, whatever the maximum makes of it.
template <class T>
RowStatistics row_statistics(const T* logits, std::int64_t vocab) {
  // The lowest finite value, not -inf: a chunk of -inf alone must add exp(-inf), not exp(NaN).
  RowStatistics row{std::numeric_limits<float>::lowest(), 0.0f};
  for (std::int64_t c = 0; c < vocab; c += kChunk) {
    const T* chunk = logits + c;
    const std::int64_t size = std::min(kChunk, vocab - c), whole = size / lanes() * lanes();
    VF max = hn::Set(DF(), row.max);
    for (std::int64_t i = 0; i < whole; i += lanes()) max = hn::Max(max, load(chunk + i));
    float new_max = max_lanes(max);
    for (std::int64_t i = whole; i < size; ++i) {
      new_max = std::max(new_max, static_cast<float>(chunk[i]));
    }
    if (new_max > row.max) {
      row.sum *= std::exp(row.max - new_max);
      row.max = new_max;
    }
    const VF shift = hn::Set(DF(), row.max);
    VF sum = hn::Zero(DF());
    for (std::int64_t i = 0; i < whole; i += lanes()) {
      sum = hn::Add(sum, exp(hn::Sub(load(chunk + i), shift)));
    }
    row.sum += sum_lanes(sum);
    for (std::int64_t i = whole; i < size; ++i) {
      row.sum += std::exp(static_cast<float>(chunk[i]) - row.max);
    }
  }
  return row;
}

void forward(Stream& stream, Tensor stats, Tensor logits, Tensor labels, std::int64_t first_id) {
  const std::int64_t vocab = logits.cols();
  const std::int32_t* label = labels.ptr<std::int32_t>();
  float* out = stats.ptr<float>();
  visit_float(logits.dtype(), [&]<class T>(T) {
    const T* all = logits.ptr<T>();
    parallel_blocks(stream, logits.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const T* row = all + t * vocab;
        const RowStatistics s = row_statistics(row, vocab);
        const std::int64_t column = label[t] - first_id;
        const bool here = column >= 0 && column < vocab;  // kIgnoreLabel is below every first_id
        float* to = out + t * kCrossEntropyStats;
        to[0] = s.max;
        to[1] = s.sum;
        to[2] = here ? static_cast<float>(row[column]) : 0.0f;
      }
    });
  });
}

/// label: a column of this row, or outside it.
template <class T>
void backward_row(T* logits, float lse, std::int64_t label, float scale, std::int64_t vocab) {
  const bool here = label >= 0 && label < vocab;
  const float target = here ? scale * std::expm1(static_cast<float>(logits[label]) - lse) : 0.0f;
  const VF shift = hn::Set(DF(), lse), factor = hn::Set(DF(), scale);
  for_lanes(vocab, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    store_n(hn::Mul(factor, exp(hn::Sub(load_n(logits + i, n), shift))), logits + i, n);
  });
  if (here) logits[label] = T(target);
}

void backward(Stream& stream, Tensor logits, Tensor lse, Tensor labels, std::int64_t first_id,
              float scale) {
  const std::int64_t vocab = logits.cols();
  const std::int32_t* label = labels.ptr<std::int32_t>();
  const float* saved = lse.ptr<float>();
  visit_float(logits.dtype(), [&]<class T>(T) {
    T* all = logits.ptr<T>();
    parallel_blocks(stream, logits.rows(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        T* row = all + t * vocab;
        if (label[t] == kIgnoreLabel) {
          std::fill(row, row + vocab, T(0.0f));
        } else {
          backward_row(row, saved[t], label[t] - first_id, scale, vocab);
        }
      }
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

namespace {

void check_labels(Tensor labels, std::int64_t vocab) {
  const std::int32_t* label = labels.ptr<std::int32_t>();
  for (std::int64_t t = 0; t < labels.numel(); ++t) {
    JAMBA_CHECK(label[t] == kIgnoreLabel || (label[t] >= 0 && label[t] < vocab),
                "label {} of token {} is neither {} nor inside the vocabulary of {}", label[t], t,
                kIgnoreLabel, vocab);
  }
}

}  // namespace

void cross_entropy_forward(Stream& stream, Tensor stats, Tensor logits, Tensor labels,
                           std::int64_t first_id, std::int64_t vocab_size) {
  check_labels(labels, vocab_size);
  HWY_DYNAMIC_DISPATCH(forward)(stream, stats, logits, labels, first_id);
}

void cross_entropy_combine(Stream& stream, Tensor loss, Tensor lse, Tensor stats_of_all,
                           Tensor labels) {
  constexpr std::int64_t kBlock = 256;
  const std::int64_t tokens = labels.numel(), end = stats_of_all.numel();
  const std::int32_t* label = labels.ptr<std::int32_t>();
  const float* stats = stats_of_all.ptr<float>();
  float* losses = loss.ptr<float>();
  float* saved = lse.ptr<float>();
  const auto combine = [&](std::int64_t t) {
    const std::int64_t first = t * kCrossEntropyStats, stride = tokens * kCrossEntropyStats;
    float max = std::numeric_limits<float>::lowest(), sum = 0, target = 0;
    for (std::int64_t i = first; i < end; i += stride) max = std::max(max, stats[i]);
    for (std::int64_t i = first; i < end; i += stride) {
      sum += stats[i + 1] * std::exp(stats[i] - max);
      target += stats[i + 2];
    }
    const float log_sum = std::log(sum);
    saved[t] = max + log_sum;
    // max - target first: it is exact where lse would have rounded the digits away.
    losses[t] = label[t] == kIgnoreLabel ? 0.0f : max - target + log_sum;
  };
  parallel_blocks(stream, tokens, kBlock, [&](std::int64_t begin, std::int64_t last) {
    for (std::int64_t t = begin; t < last; ++t) combine(t);
  });
}

void cross_entropy_backward(Stream& stream, Tensor logits, Tensor lse, Tensor labels,
                            std::int64_t first_id, float scale) {
  HWY_DYNAMIC_DISPATCH(backward)(stream, logits, lse, labels, first_id, scale);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

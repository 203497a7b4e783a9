// What the scan's forward and backward share on one SIMD target. Included once per target.

#if defined(JAMBA_KERNELS_MAMBA_SELECTIVE_SCAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef JAMBA_KERNELS_MAMBA_SELECTIVE_SCAN_INL_H_
#undef JAMBA_KERNELS_MAMBA_SELECTIVE_SCAN_INL_H_
#else
#define JAMBA_KERNELS_MAMBA_SELECTIVE_SCAN_INL_H_
#endif

#include <hwy/cache_control.h>

#include "kernels/core/parallel.h"
#include "kernels/core/simd-inl.h"
#include "kernels/core/simd_math-inl.h"
#include "kernels/mamba/selective_scan_plan.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {

/// Channels of a vector, and vectors of a task's group.
constexpr std::int64_t kLanes = HWY_LANES(float);
static_assert(kScanBlock % kLanes == 0);
constexpr std::int64_t kGroupVectors = kScanGroup / kLanes;
/// States that a pass over a chunk keeps in registers.
constexpr int kTile = 4;

/// One value for each (channel, step) of a group and chunk: steps of a vector lie side by side. The
/// padding keeps vectors of the same step out of each other's cache sets.
struct Panel {
  static constexpr std::int64_t kStride = kScanChunk * kLanes + 16;
  HWY_ALIGN float data[kGroupVectors * kStride];

  float* at(std::int64_t vector) { return data + vector * kStride; }
  float* at(std::int64_t vector, std::int64_t step) { return at(vector) + step * kLanes; }
};

/// The runs of steps of one chunk between document starts. Run i is [begin[i], begin[i + 1]);
/// every run but the first begins a document, and the first does if `first_resets`.
struct Runs {
  int count = 1;
  bool first_resets = false;
  int begin[kScanChunk + 1] = {};

  Runs(const std::int32_t* doc_start, std::int64_t t0, std::int64_t steps) {
    if (doc_start != nullptr) {
      first_resets = doc_start[t0] == t0;
      for (std::int64_t t = 1; t < steps; ++t) {
        if (doc_start[t0 + t] == t0 + t) begin[count++] = static_cast<int>(t);
      }
    }
    begin[count] = static_cast<int>(steps);
  }
  bool resets(int i) const { return i > 0 || first_resets; }
};

/// Rows of a chunk lie `inner` elements apart, often a power of two: too far for the hardware's
/// prefetchers, and in few cache sets. So each loop over rows asks for those two steps ahead.
struct RowAhead {
  std::int64_t offset;  // from an element to the one two steps on, 0 at the sequence's end

  RowAhead(const ScanPlan& plan, std::int64_t t) : offset(t + 2 < plan.seq ? 2 * plan.inner : 0) {}

  template <class... T>
  HWY_INLINE void prefetch(const T*... rows) const {
    (hwy::Prefetch(rows + offset), ...);
  }
};

/// Calls body(vector, channel, count) for the vectors of a task; channel counts from the task's
/// first; count < kLanes only in the last vector.
template <class Body>
HWY_INLINE void for_vectors(std::int64_t width, Body&& body) {
  std::int64_t v = 0;
  for (; (v + 1) * kLanes <= width; ++v) body(v, v * kLanes, kLanes);
  if (v * kLanes < width) body(v, v * kLanes, width - v * kLanes);
}

/// -exp(a_log) * log2(e) in the private layout; channels of the padding hold 0.
inline void decay_rates(float* rates, const float* a_log, const ScanPlan& plan,
                        const ScanTask& task) {
  const std::int64_t n = plan.state, end = task.d0 + task.width;
  for (std::int64_t d = task.d0; d < (end + kScanBlock - 1) / kScanBlock * kScanBlock; ++d) {
    float* out = rates + plan.state_offset(d);
    for_lanes(n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
      HWY_ALIGN float rate[kLanes] = {};
      if (d < end) {
        const VF a = exp(load_n(a_log + d * n + i, count));
        store(hn::Mul(a, hn::Set(DF(), -1.44269504f)), rate);
      }
      for (std::int64_t j = 0; j < count; ++j) out[(i + j) * kScanBlock] = rate[j];
    });
  }
}

/// Between [channel][state] rows of a task and the private layout. Null rows read as zero.
inline void read_states(float* states, const float* rows, const ScanPlan& plan,
                        const ScanTask& task) {
  const std::int64_t end = (task.d0 + task.width + kScanBlock - 1) / kScanBlock * kScanBlock;
  for (std::int64_t d = task.d0; d < end; ++d) {
    const bool zero = rows == nullptr || d >= plan.inner;
    for (std::int64_t n = 0; n < plan.state; ++n) {
      states[plan.state_offset(d) + n * kScanBlock] =
          zero ? 0.0f : rows[(task.b * plan.inner + d) * plan.state + n];
    }
  }
}

inline void write_states(float* rows, const float* states, const ScanPlan& plan,
                         const ScanTask& task) {
  for (std::int64_t d = task.d0; d < task.d0 + task.width; ++d) {
    for (std::int64_t n = 0; n < plan.state; ++n) {
      rows[(task.b * plan.inner + d) * plan.state + n] =
          states[plan.state_offset(d) + n * kScanBlock];
    }
  }
}

/// exp(dt A) of one vector of channels and up to kTile states, for the steps of a chunk.
struct Decay {
  HWY_ALIGN float data[kScanChunk][kTile][kLanes];
};

template <Underflow kUnderflow, int kStates>
HWY_INLINE void compute_decay(Decay& decay, const float* HWY_RESTRICT dt,
                              const float* HWY_RESTRICT rates, std::int64_t steps) {
  for (std::int64_t t = 0; t < steps; ++t) {
    const VF v = load(dt + t * kLanes);
#pragma GCC unroll 8
    for (int k = 0; k < kStates; ++k) {
      store(exp2_product<kUnderflow>(v, load(rates + k * kScanBlock)), decay.data[t][k]);
    }
  }
}

/// As a pass of its own, without the recurrence's dependences, it fills the pipelines better. The
/// test for underflow is left out where the largest dt shows that nothing underflows.
template <int kStates>
HWY_INLINE void compute_decay(Decay& decay, const float* dt, VF largest_dt, const float* rates,
                              std::int64_t steps) {
  VF lowest = load(rates);
  for (int k = 1; k < kStates; ++k) lowest = hn::Min(lowest, load(rates + k * kScanBlock));
  const DF d;
  if (hn::AllTrue(d, hn::Ge(hn::Mul(largest_dt, lowest), hn::Set(d, -125.0f)))) {
    compute_decay<Underflow::impossible, kStates>(decay, dt, rates, steps);
  } else {
    compute_decay<Underflow::to_zero, kStates>(decay, dt, rates, steps);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

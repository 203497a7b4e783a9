#include "kernels/mamba/selective_scan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mamba/selective_scan_forward_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/mamba/selective_scan-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Raw pointers of one call; states and y are null when nothing is saved.
template <class T>
struct Forward {
  ScanPlan plan;
  const T *u, *delta, *z;
  const float *b, *c, *delta_bias, *d, *rates;
  const std::int32_t* doc_start;
  T *out, *y;
  float* states;
};

/// The values of one chunk and task that pass between the three stages.
struct ForwardPanels {
  Panel dt, dtu, y;
};

/// dt, dt * u and the D skip, which starts the sum of y.
template <class T>
void prologue(ForwardPanels& panels, const Forward<T>& f, const ScanTask& task, std::int64_t t0,
              std::int64_t steps) {
  const float *bias = f.delta_bias + task.d0, *skip = f.d + task.d0;
  for (std::int64_t t = 0; t < steps; ++t) {
    const std::int64_t at = (task.b * f.plan.seq + t0 + t) * f.plan.inner + task.d0;
    for_vectors(task.width, [&](std::int64_t v, std::int64_t i, std::int64_t n) HWY_ATTR {
      const VF u = load_n(f.u + at + i, n);
      const VF dt = softplus(hn::Add(load_n(f.delta + at + i, n), load_n(bias + i, n))).value;
      store(dt, panels.dt.at(v, t));
      store(hn::Mul(dt, u), panels.dtu.at(v, t));
      store(hn::Mul(load_n(skip + i, n), u), panels.y.at(v, t));
    });
  }
}

/// kStates states of one vector of channels through one chunk: y += sum_n C h.
template <int kStates>
void scan_tile(float* h_memory, float* checkpoint, const float* rates, const float* b,
               const float* c, std::int64_t state, const float* dt_row, const float* dtu_row,
               float* y_row, const Runs& runs) {
  VF h[kStates];
#pragma GCC unroll 8
  for (int k = 0; k < kStates; ++k) {
    h[k] = load(h_memory + k * kScanBlock);
    if (checkpoint != nullptr) store(h[k], checkpoint + k * kScanBlock);
  }
  for (int run = 0; run < runs.count; ++run) {
    if (runs.resets(run)) {
#pragma GCC unroll 8
      for (int k = 0; k < kStates; ++k) h[k] = hn::Zero(DF());
    }
    for (std::int64_t t = runs.begin[run]; t < runs.begin[run + 1]; ++t) {
      const VF dt = load(dt_row + t * kLanes), dtu = load(dtu_row + t * kLanes);
      VF y = load(y_row + t * kLanes);
#pragma GCC unroll 8
      for (int k = 0; k < kStates; ++k) {
        h[k] =
            advance(h[k], dt, dtu, load(rates + k * kScanBlock), hn::Set(DF(), b[t * state + k])).h;
        y = hn::MulAdd(hn::Set(DF(), c[t * state + k]), h[k], y);
      }
      store(y, y_row + t * kLanes);
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kStates; ++k) store(h[k], h_memory + k * kScanBlock);
}

template <class T>
void epilogue(ForwardPanels& panels, const Forward<T>& f, const ScanTask& task, std::int64_t t0,
              std::int64_t steps) {
  for (std::int64_t t = 0; t < steps; ++t) {
    const std::int64_t at = (task.b * f.plan.seq + t0 + t) * f.plan.inner + task.d0;
    for_vectors(task.width, [&](std::int64_t v, std::int64_t i, std::int64_t n) HWY_ATTR {
      const VF y = load(panels.y.at(v, t));
      if (f.y != nullptr) store_n(y, f.y + at + i, n);
      store_n(hn::Mul(y, silu(load_n(f.z + at + i, n))), f.out + at + i, n);
    });
  }
}

/// `running` holds the states of all channels of the sequence.
template <class T>
void forward_task(const Forward<T>& f, const ScanTask& task, float* running) {
  const std::int64_t state = f.plan.state;
  ForwardPanels panels;
  for (std::int64_t chunk = 0; chunk < f.plan.chunks(); ++chunk) {
    const std::int64_t t0 = chunk * kScanChunk, steps = f.plan.chunk_steps(chunk);
    const Runs runs(f.doc_start == nullptr ? nullptr : f.doc_start + task.b * f.plan.seq, t0,
                    steps);
    const std::int64_t bc = (task.b * f.plan.seq + t0) * state;
    float* saved = f.states == nullptr
                       ? nullptr
                       : f.states + (task.b * f.plan.chunks() + chunk) * f.plan.state_floats();
    prologue(panels, f, task, t0, steps);
    for_vectors(task.width, [&](std::int64_t v, std::int64_t i, std::int64_t) HWY_ATTR {
      const std::int64_t offset = f.plan.state_offset(task.d0 + i);
      const auto tile = [&](auto scan, std::int64_t n) HWY_ATTR {
        const std::int64_t at = offset + n * kScanBlock;
        scan(running + at, saved == nullptr ? nullptr : saved + at, f.rates + at, f.b + bc + n,
             f.c + bc + n, state, panels.dt.at(v), panels.dtu.at(v), panels.y.at(v), runs);
      };
      std::int64_t n = 0;
      for (; n + kTile <= state; n += kTile) tile(scan_tile<kTile>, n);
      for (; n < state; ++n) tile(scan_tile<1>, n);
    });
    epilogue(panels, f, task, t0, steps);
  }
}

void forward(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
             const SelectiveScanSaved& saved, const SelectiveScanInputs& in) {
  const ScanPlan plan{in.u.dim(0), in.u.dim(1), in.u.dim(2), in.b.dim(2)};
  ArenaScope scope(scratch);
  float* rates = scratch.allocate(DType::f32, {plan.state_floats()}).ptr<float>();
  float* running = scratch.allocate(DType::f32, {plan.batch, plan.state_floats()}).ptr<float>();
  parallel_blocks(stream, plan.groups(), 1, [&](std::int64_t i, std::int64_t) {
    decay_rates(rates, in.a_log.ptr<float>(), plan, plan.task(i));
  });
  visit_float(in.u.dtype(), [&]<class T>(T) {
    const Forward<T> f{.plan = plan,
                       .u = in.u.ptr<T>(),
                       .delta = in.delta.ptr<T>(),
                       .z = in.z.ptr<T>(),
                       .b = in.b.ptr<float>(),
                       .c = in.c.ptr<float>(),
                       .delta_bias = in.delta_bias.ptr<float>(),
                       .d = in.d.ptr<float>(),
                       .rates = rates,
                       .doc_start = in.doc_start.ptr<std::int32_t>(),
                       .out = out.ptr<T>(),
                       .y = saved.y.ptr<T>(),
                       .states = static_cast<float*>(saved.states.raw())};
    parallel_blocks(stream, plan.tasks(), 1, [&](std::int64_t i, std::int64_t) {
      const ScanTask task = plan.task(i);
      float* h = running + task.b * plan.state_floats();
      read_states(h, in.h0.ptr<float>(), plan, task);
      forward_task(f, task, h);
      if (h_last.present()) write_states(h_last.ptr<float>(), h, plan, task);
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

void selective_scan_forward(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
                            const SelectiveScanSaved& saved, const SelectiveScanInputs& in) {
  HWY_DYNAMIC_DISPATCH(forward)(stream, scratch, out, h_last, saved, in);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

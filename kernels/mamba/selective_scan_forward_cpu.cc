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
  HWY_ALIGN float largest_dt[kScanGroup];
};

/// dt, dt * u and the D skip, which starts the sum of y.
template <class T>
void prologue(ForwardPanels& panels, const Forward<T>& f, const ScanTask& task, std::int64_t t0,
              std::int64_t steps) {
  const float *bias = f.delta_bias + task.d0, *skip = f.d + task.d0;
  std::fill_n(panels.largest_dt, kScanGroup, 0.0f);
  for (std::int64_t t = 0; t < steps; ++t) {
    const std::int64_t at = (task.b * f.plan.seq + t0 + t) * f.plan.inner + task.d0;
    const RowAhead ahead(f.plan, t0 + t);
    for_vectors(task.width, [&](std::int64_t v, std::int64_t i, std::int64_t n) HWY_ATTR {
      ahead.prefetch(f.u + at + i, f.delta + at + i);
      const VF u = load_n(f.u + at + i, n);
      const VF dt = softplus(hn::Add(load_n(f.delta + at + i, n), load_n(bias + i, n))).value;
      store(dt, panels.dt.at(v, t));
      store(hn::Mul(dt, u), panels.dtu.at(v, t));
      store(hn::Mul(load_n(skip + i, n), u), panels.y.at(v, t));
      store(hn::Max(load(panels.largest_dt + i), dt), panels.largest_dt + i);
    });
  }
}

/// One vector of channels in a tile.
struct TileRow {
  float *h, *checkpoint;  // checkpoint may be null
  const float* dtu;
  float* y;
};

/// Carries kStates states of kVectors vectors through one chunk: h = a h + dtu B; y += C h.
template <int kVectors, int kStates>
void scan_tile(const TileRow* rows, const Decay* decay, const float* b, const float* c,
               std::int64_t state, const Runs& runs) {
  VF h[kVectors][kStates];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (int k = 0; k < kStates; ++k) {
      h[v][k] = load(rows[v].h + k * kScanBlock);
      if (rows[v].checkpoint != nullptr) store(h[v][k], rows[v].checkpoint + k * kScanBlock);
    }
  }
  for (int run = 0; run < runs.count; ++run) {
    if (runs.resets(run)) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
        for (int k = 0; k < kStates; ++k) h[v][k] = hn::Zero(DF());
      }
    }
    for (std::int64_t t = runs.begin[run]; t < runs.begin[run + 1]; ++t) {
      VF dtu[kVectors], y[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        dtu[v] = load(rows[v].dtu + t * kLanes);
        y[v] = load(rows[v].y + t * kLanes);
      }
#pragma GCC unroll 8
      for (int k = 0; k < kStates; ++k) {
        const VF b_k = hn::Set(DF(), b[t * state + k]), c_k = hn::Set(DF(), c[t * state + k]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          h[v][k] = hn::MulAdd(dtu[v], b_k, hn::Mul(load(decay[v].data[t][k]), h[v][k]));
          y[v] = hn::MulAdd(c_k, h[v][k], y[v]);
        }
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(y[v], rows[v].y + t * kLanes);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (int k = 0; k < kStates; ++k) store(h[v][k], rows[v].h + k * kScanBlock);
  }
}

template <class T>
void epilogue(ForwardPanels& panels, const Forward<T>& f, const ScanTask& task, std::int64_t t0,
              std::int64_t steps) {
  for (std::int64_t t = 0; t < steps; ++t) {
    const std::int64_t at = (task.b * f.plan.seq + t0 + t) * f.plan.inner + task.d0;
    const RowAhead ahead(f.plan, t0 + t);
    for_vectors(task.width, [&](std::int64_t v, std::int64_t i, std::int64_t n) HWY_ATTR {
      ahead.prefetch(f.z + at + i, f.out + at + i);
      const VF y = load(panels.y.at(v, t));
      if (f.y != nullptr) store_n(y, f.y + at + i, n);
      store_n(hn::Mul(y, silu(load_n(f.z + at + i, n))), f.out + at + i, n);
    });
  }
}

/// What the tiles of one chunk share.
struct ChunkPlace {
  float *running, *saved;  // states of the sequence's channels, in the private layout
  const float *rates, *b, *c;
  std::int64_t steps;
};

/// States [n, n + kStates) of vectors [v, v + kVectors).
template <int kVectors, int kStates>
void forward_tile(ForwardPanels& panels, const ScanPlan& plan, const ScanTask& task,
                  const ChunkPlace& at, std::int64_t v, std::int64_t n, const Runs& runs) {
  Decay decay[kVectors];
  TileRow rows[kVectors];
  for (int i = 0; i < kVectors; ++i) {
    const std::int64_t channel = (v + i) * kLanes;
    const std::int64_t offset = plan.state_offset(task.d0 + channel) + n * kScanBlock;
    compute_decay<kStates>(decay[i], panels.dt.at(v + i), load(panels.largest_dt + channel),
                           at.rates + offset, at.steps);
    rows[i] = {at.running + offset, at.saved == nullptr ? nullptr : at.saved + offset,
               panels.dtu.at(v + i), panels.y.at(v + i)};
  }
  scan_tile<kVectors, kStates>(rows, decay, at.b + n, at.c + n, plan.state, runs);
}

template <int kVectors>
void forward_vectors(ForwardPanels& panels, const ScanPlan& plan, const ScanTask& task,
                     const ChunkPlace& at, std::int64_t v, const Runs& runs) {
  std::int64_t n = 0;
  for (; n + kTile <= plan.state; n += kTile) {
    forward_tile<kVectors, kTile>(panels, plan, task, at, v, n, runs);
  }
  for (; n < plan.state; ++n) forward_tile<kVectors, 1>(panels, plan, task, at, v, n, runs);
}

/// `running` holds the states of all channels of the sequence.
template <class T>
void forward_task(const Forward<T>& f, const ScanTask& task, float* running) {
  const ScanPlan& plan = f.plan;
  const std::int32_t* doc_start =
      f.doc_start == nullptr ? nullptr : f.doc_start + task.b * plan.seq;
  const std::int64_t vectors = (task.width + kLanes - 1) / kLanes;
  ForwardPanels panels;
  for (std::int64_t chunk = 0; chunk < plan.chunks(); ++chunk) {
    const std::int64_t t0 = chunk * kScanChunk, steps = plan.chunk_steps(chunk);
    const std::int64_t bc = (task.b * plan.seq + t0) * plan.state;
    const std::int64_t checkpoint = (task.b * plan.chunks() + chunk) * plan.state_floats();
    const ChunkPlace at{.running = running,
                        .saved = f.states == nullptr ? nullptr : f.states + checkpoint,
                        .rates = f.rates,
                        .b = f.b + bc,
                        .c = f.c + bc,
                        .steps = steps};
    const Runs runs(doc_start, t0, steps);
    prologue(panels, f, task, t0, steps);
    std::int64_t v = 0;
    for (; v + 2 <= vectors; v += 2) forward_vectors<2>(panels, plan, task, at, v, runs);
    if (v < vectors) forward_vectors<1>(panels, plan, task, at, v, runs);
    epilogue(panels, f, task, t0, steps);
  }
}

void forward(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
             const SelectiveScanSaved& saved, const SelectiveScanInputs& in, ChannelRange range) {
  const ScanPlan plan = ScanPlan::of(in, range);
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
                            const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                            ChannelRange range) {
  HWY_DYNAMIC_DISPATCH(forward)(stream, scratch, out, h_last, saved, in, range);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

#include "kernels/mamba/selective_scan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mamba/selective_scan_backward_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/mamba/selective_scan-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Raw pointers of one call.
template <class T>
struct Backward {
  ScanPlan plan;
  const T *u, *delta, *z, *y, *dout;  // out may be dout
  const float *b, *c, *delta_bias, *d, *rates, *states;
  const std::int32_t* doc_start;
  T *du, *ddelta, *dz, *out;
  /// Private sums of each task, in the private layout or [inner], and of each group, as b and c.
  float *d_rate, *d_skip, *d_bias, *db, *dc;
};

/// The values of one chunk and task that pass between the stages.
struct BackwardPanels {
  Panel dt, dtu, dy, u, slope;
  Panel g_b;  // sum_n g B
  Panel g_a;  // sum_n g p rate
  HWY_ALIGN float largest_dt[kScanGroup];
};

/// Whether sums over channels can hold a tile's states side by side in one vector.
template <int kStates>
constexpr bool kFolds = kStates == 4 && kLanes >= 4;

/// Sums over channels for each step and state of a tile. A full tile on vectors of 4 lanes or more
/// folds: lane l of the first row belongs to state l % 4, so that the sums take a quarter of the
/// loads, stores and cache. Otherwise each state has a row, a lane for each channel.
struct ChannelSums {
  HWY_ALIGN float rows[kScanChunk][kTile][kLanes];

  /// Adds products[k] of every channel to state k's sum at step t.
  template <int kStates>
  HWY_INLINE void add(std::int64_t t, const VF* products) {
    if constexpr (kFolds<kStates>) {
      store(hn::Add(load(rows[t][0]), fold(products)), rows[t][0]);
    } else {
#pragma GCC unroll 8
      for (int k = 0; k < kStates; ++k) store(hn::Add(load(rows[t][k]), products[k]), rows[t][k]);
    }
  }
  template <int kStates>
  float total(std::int64_t t, int k) const {
    if constexpr (!kFolds<kStates>) return sum_lanes(load(rows[t][k]));
    float sum = 0;
    for (std::int64_t lane = k; lane < kLanes; lane += 4) sum += rows[t][0][lane];
    return sum;
  }
  template <int kStates>
  void clear(std::int64_t steps) {
    for (std::int64_t t = 0; t < steps; ++t) {
      for (int k = 0; k < (kFolds<kStates> ? 1 : kStates); ++k) store(hn::Zero(DF()), rows[t][k]);
    }
  }

 private:
  /// Lane l: v[l % 4] summed over its lanes of the 128-bit block that l is in.
  static HWY_INLINE VF fold(const VF* v) {
#if HWY_TARGET == HWY_SCALAR
    return v[0];  // not called: one lane has nothing to fold
#else
    const DF d;
    const hn::RepartitionToWide<DF> pairs;
    const VF v01 = hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1]));
    const VF v23 = hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3]));
    const auto a = hn::BitCast(pairs, v01), b = hn::BitCast(pairs, v23);
    return hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, a, b)),
                   hn::BitCast(d, hn::InterleaveUpper(pairs, a, b)));
#endif
  }
};

/// What recomputing a tile leaves for its reverse pass, and the sums of dB and dC.
struct TileScratch {
  Decay a;
  HWY_ALIGN float p[kScanChunk][kTile][kLanes];
  ChannelSums db, dc;
};

/// dt, dt * u, dy, the gradient of the gate and its output; sums dD over the chunk, then over
/// chunks.
template <class T>
void prologue(BackwardPanels& panels, const Backward<T>& f, const ScanTask& task, std::int64_t t0,
              std::int64_t steps) {
  const float* bias = f.delta_bias + task.d0;
  HWY_ALIGN float sums[kScanGroup] = {};
  std::fill_n(panels.largest_dt, kScanGroup, 0.0f);
  const VF one = hn::Set(DF(), 1.0f);
  for (std::int64_t t = 0; t < steps; ++t) {
    const std::int64_t at = (task.b * f.plan.seq + t0 + t) * f.plan.inner + task.d0;
    const RowAhead ahead(f.plan, t0 + t);
    for_vectors(task.width, [&](std::int64_t v, std::int64_t i, std::int64_t n) HWY_ATTR {
      ahead.prefetch(f.u + at + i, f.z + at + i, f.delta + at + i, f.dout + at + i, f.y + at + i,
                     f.dz + at + i);
      const VF u = load_n(f.u + at + i, n), z = load_n(f.z + at + i, n);
      const auto dt = softplus(hn::Add(load_n(f.delta + at + i, n), load_n(bias + i, n)));
      const VF y = load_n(f.y + at + i, n), s = sigmoid(z);
      const VF dout_s = hn::Mul(load_n(f.dout + at + i, n), s);
      const VF dy = hn::Mul(dout_s, z);
      const VF dz = hn::Mul(hn::Mul(dout_s, y), hn::MulAdd(z, hn::Sub(one, s), one));
      store_n(dz, f.dz + at + i, n);
      store_n(hn::Mul(y, hn::Mul(z, s)), f.out + at + i, n);
      store(dt.value, panels.dt.at(v, t));
      store(hn::Mul(dt.value, u), panels.dtu.at(v, t));
      store(dy, panels.dy.at(v, t));
      store(u, panels.u.at(v, t));
      store(dt.derivative, panels.slope.at(v, t));
      store(hn::Zero(DF()), panels.g_b.at(v, t));
      store(hn::Zero(DF()), panels.g_a.at(v, t));
      store(hn::MulAdd(dy, u, load(sums + i)), sums + i);
      store(hn::Max(load(panels.largest_dt + i), dt.value), panels.largest_dt + i);
    });
  }
  for_lanes(task.width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    float* total = f.d_skip + task.b * f.plan.inner + task.d0 + i;
    store_n(hn::Add(load_n(total, n), load(sums + i)), total, n);
  });
}

/// Repeats forward for a tile and chunk, given tile.a; keeps p and adds dy h to dc.
template <int kStates>
void recompute_tile(TileScratch& tile, const float* checkpoint, const float* b, std::int64_t state,
                    const float* dtu_row, const float* dy_row, const Runs& runs) {
  VF h[kStates];
#pragma GCC unroll 8
  for (int k = 0; k < kStates; ++k) h[k] = load(checkpoint + k * kScanBlock);
  for (int run = 0; run < runs.count; ++run) {
    if (runs.resets(run)) {
#pragma GCC unroll 8
      for (int k = 0; k < kStates; ++k) h[k] = hn::Zero(DF());
    }
    for (std::int64_t t = runs.begin[run]; t < runs.begin[run + 1]; ++t) {
      const VF dtu = load(dtu_row + t * kLanes), dy = load(dy_row + t * kLanes);
      VF dc[kStates];
#pragma GCC unroll 8
      for (int k = 0; k < kStates; ++k) {
        const VF p = hn::Mul(load(tile.a.data[t][k]), h[k]);
        store(p, tile.p[t][k]);
        h[k] = hn::MulAdd(dtu, hn::Set(DF(), b[t * state + k]), p);
        dc[k] = hn::Mul(dy, h[k]);
      }
      tile.dc.add<kStates>(t, dc);
    }
  }
}

/// Carries the state's gradient back through a tile and chunk. `carry` is the gradient that
/// reaches the chunk's last state from later steps, and becomes that of the chunk's first.
template <int kStates>
void reverse_tile(TileScratch& tile, float* carry, float* d_rate, const float* rates,
                  const float* b, const float* c, std::int64_t state, const float* dt_row,
                  const float* dtu_row, const float* dy_row, float* g_b_row, float* g_a_row,
                  const Runs& runs) {
  VF g[kStates], sum[kStates];
#pragma GCC unroll 8
  for (int k = 0; k < kStates; ++k) {
    g[k] = load(carry + k * kScanBlock);
    sum[k] = hn::Zero(DF());
  }
  for (int run = runs.count - 1; run >= 0; --run) {
    for (std::int64_t t = runs.begin[run + 1] - 1; t >= runs.begin[run]; --t) {
      const VF dt = load(dt_row + t * kLanes), dtu = load(dtu_row + t * kLanes);
      const VF dy = load(dy_row + t * kLanes);
      VF g_b = load(g_b_row + t * kLanes), g_a = load(g_a_row + t * kLanes);
      VF db[kStates];
#pragma GCC unroll 8
      for (int k = 0; k < kStates; ++k) {
        const VF gh = hn::MulAdd(dy, hn::Set(DF(), c[t * state + k]), g[k]);
        const VF gp = hn::Mul(gh, load(tile.p[t][k]));
        g_b = hn::MulAdd(gh, hn::Set(DF(), b[t * state + k]), g_b);
        g_a = hn::MulAdd(gp, load(rates + k * kScanBlock), g_a);
        sum[k] = hn::MulAdd(dt, gp, sum[k]);
        g[k] = hn::Mul(gh, load(tile.a.data[t][k]));
        db[k] = hn::Mul(dtu, gh);
      }
      tile.db.add<kStates>(t, db);
      store(g_b, g_b_row + t * kLanes);
      store(g_a, g_a_row + t * kLanes);
    }
    if (runs.resets(run)) {
#pragma GCC unroll 8
      for (int k = 0; k < kStates; ++k) g[k] = hn::Zero(DF());
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kStates; ++k) {
    store(g[k], carry + k * kScanBlock);
    float* total = d_rate + k * kScanBlock;
    store(hn::Add(load(total), sum[k]), total);
  }
}

/// du, ddelta, and dbias summed over the chunk, then over chunks.
template <class T>
void epilogue(BackwardPanels& panels, const Backward<T>& f, const ScanTask& task, std::int64_t t0,
              std::int64_t steps) {
  const float* skip = f.d + task.d0;
  HWY_ALIGN float sums[kScanGroup] = {};
  const VF ln2 = hn::Set(DF(), 0.693147181f);
  for (std::int64_t t = 0; t < steps; ++t) {
    const std::int64_t at = (task.b * f.plan.seq + t0 + t) * f.plan.inner + task.d0;
    const RowAhead ahead(f.plan, t0 + t);
    for_vectors(task.width, [&](std::int64_t v, std::int64_t i, std::int64_t n) HWY_ATTR {
      ahead.prefetch(f.du + at + i, f.ddelta + at + i);
      const VF g_b = load(panels.g_b.at(v, t)), dt = load(panels.dt.at(v, t));
      const VF du = hn::MulAdd(load_n(skip + i, n), load(panels.dy.at(v, t)), hn::Mul(dt, g_b));
      const VF g_a = hn::Mul(load(panels.g_a.at(v, t)), ln2);
      const VF ddt = hn::MulAdd(load(panels.u.at(v, t)), g_b, g_a);
      const VF ddelta = hn::Mul(ddt, load(panels.slope.at(v, t)));
      store_n(du, f.du + at + i, n);
      store_n(ddelta, f.ddelta + at + i, n);
      store(hn::Add(load(sums + i), ddelta), sums + i);
    });
  }
  for_lanes(task.width, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    float* total = f.d_bias + task.b * f.plan.inner + task.d0 + i;
    store_n(hn::Add(load_n(total, n), load(sums + i)), total, n);
  });
}

/// Where one task and chunk finds its states, carries and rows of b and c.
struct ChunkPlace {
  const float *states, *rates, *b, *c;
  float *carry, *d_rate, *db, *dc;
};

/// All channels of the task through kStates states from state n on.
template <int kStates>
void backward_tile(TileScratch& tile, BackwardPanels& panels, const ScanPlan& plan,
                   const ScanTask& task, const ChunkPlace& at, std::int64_t n, std::int64_t steps,
                   const Runs& runs) {
  const std::int64_t state = plan.state;
  tile.db.clear<kStates>(steps);
  tile.dc.clear<kStates>(steps);
  for_vectors(task.width, [&](std::int64_t v, std::int64_t i, std::int64_t) HWY_ATTR {
    const std::int64_t offset = plan.state_offset(task.d0 + i) + n * kScanBlock;
    compute_decay<kStates>(tile.a, panels.dt.at(v), load(panels.largest_dt + i), at.rates + offset,
                           steps);
    recompute_tile<kStates>(tile, at.states + offset, at.b + n, state, panels.dtu.at(v),
                            panels.dy.at(v), runs);
    reverse_tile<kStates>(tile, at.carry + offset, at.d_rate + offset, at.rates + offset, at.b + n,
                          at.c + n, state, panels.dt.at(v), panels.dtu.at(v), panels.dy.at(v),
                          panels.g_b.at(v), panels.g_a.at(v), runs);
  });
  for (std::int64_t t = 0; t < steps; ++t) {
    for (int k = 0; k < kStates; ++k) {
      at.db[t * state + n + k] = tile.db.total<kStates>(t, k);
      at.dc[t * state + n + k] = tile.dc.total<kStates>(t, k);
    }
  }
}

template <class T>
void backward_task(const Backward<T>& f, const ScanTask& task, float* carry) {
  const ScanPlan& plan = f.plan;
  const std::int64_t group = (task.d0 - plan.range.begin) / kScanGroup;
  const std::int64_t partial = group * plan.batch * plan.seq * plan.state;
  BackwardPanels panels;
  TileScratch tile;
  for (std::int64_t chunk = plan.chunks() - 1; chunk >= 0; --chunk) {
    const std::int64_t t0 = chunk * kScanChunk, steps = plan.chunk_steps(chunk);
    const Runs runs(f.doc_start == nullptr ? nullptr : f.doc_start + task.b * plan.seq, t0, steps);
    const std::int64_t bc = (task.b * plan.seq + t0) * plan.state;
    const ChunkPlace at{.states = f.states + (task.b * plan.chunks() + chunk) * plan.state_floats(),
                        .rates = f.rates,
                        .b = f.b + bc,
                        .c = f.c + bc,
                        .carry = carry,
                        .d_rate = f.d_rate + task.b * plan.state_floats(),
                        .db = f.db + partial + bc,
                        .dc = f.dc + partial + bc};
    prologue(panels, f, task, t0, steps);
    std::int64_t n = 0;
    for (; n + kTile <= plan.state; n += kTile) {
      backward_tile<kTile>(tile, panels, plan, task, at, n, steps, runs);
    }
    for (; n < plan.state; ++n) backward_tile<1>(tile, panels, plan, task, at, n, steps, runs);
    epilogue(panels, f, task, t0, steps);
  }
}

/// total[i] = sum over groups, in order, or += that.
void sum_groups(Stream& stream, float* total, Write write, const float* partials,
                std::int64_t groups, std::int64_t size) {
  parallel_blocks(stream, size, 4096, [&](std::int64_t begin, std::int64_t end) {
    for_lanes(end - begin, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
      VF sum = groups == 0 ? hn::Zero(DF()) : load_n(partials + begin + i, n);
      for (std::int64_t g = 1; g < groups; ++g) {
        sum = hn::Add(sum, load_n(partials + g * size + begin + i, n));
      }
      if (write == Write::accumulate) sum = hn::Add(load_n(total + begin + i, n), sum);
      store_n(sum, total + begin + i, n);
    });
  });
}

/// Adds the private sums of every sequence, in order, to the parameters' gradients.
template <class T>
void add_parameter_gradients(const Backward<T>& f, const SelectiveScanGradients& gradients,
                             const ScanTask& task) {
  constexpr float kLn2 = 0.693147181f;
  for (std::int64_t d = task.d0; d < task.d0 + task.width; ++d) {
    float skip = 0, bias = 0;
    for (std::int64_t b = 0; b < f.plan.batch; ++b) {
      skip += f.d_skip[b * f.plan.inner + d];
      bias += f.d_bias[b * f.plan.inner + d];
    }
    gradients.dd.ptr<float>()[d] += skip;
    gradients.ddelta_bias.ptr<float>()[d] += bias;
    for (std::int64_t n = 0; n < f.plan.state; ++n) {
      const std::int64_t at = f.plan.state_offset(d) + n * kScanBlock;
      float sum = 0;
      for (std::int64_t b = 0; b < f.plan.batch; ++b) {
        sum += f.d_rate[b * f.plan.state_floats() + at];
      }
      gradients.da_log.ptr<float>()[d * f.plan.state + n] += sum * (f.rates[at] * kLn2);
    }
  }
}

template <class T>
void run_backward(Stream& stream, const Backward<T>& f, float* carries,
                  const SelectiveScanGradients& gradients, Tensor dh_last,
                  const SelectiveScanInputs& in, Write write_bc) {
  const ScanPlan& plan = f.plan;
  parallel_blocks(stream, plan.groups(), 1, [&](std::int64_t i, std::int64_t) {
    decay_rates(const_cast<float*>(f.rates), in.a_log.ptr<float>(), plan, plan.task(i));
  });
  parallel_blocks(stream, plan.tasks(), 1, [&](std::int64_t i, std::int64_t) {
    const ScanTask task = plan.task(i);
    float* carry = carries + task.b * plan.state_floats();
    read_states(carry, dh_last.ptr<float>(), plan, task);
    read_states(f.d_rate + task.b * plan.state_floats(), nullptr, plan, task);
    std::fill_n(f.d_skip + task.b * plan.inner + task.d0, task.width, 0.0f);
    std::fill_n(f.d_bias + task.b * plan.inner + task.d0, task.width, 0.0f);
    backward_task(f, task, carry);
    if (gradients.dh0.present()) write_states(gradients.dh0.ptr<float>(), carry, plan, task);
  });
  const std::int64_t size = plan.batch * plan.seq * plan.state;
  sum_groups(stream, gradients.db.ptr<float>(), write_bc, f.db, plan.groups(), size);
  sum_groups(stream, gradients.dc.ptr<float>(), write_bc, f.dc, plan.groups(), size);
  parallel_blocks(stream, plan.groups(), 1, [&](std::int64_t i, std::int64_t) {
    add_parameter_gradients(f, gradients, plan.task(i));
  });
}

void backward(Stream& stream, Arena& scratch, const SelectiveScanGradients& gradients, Tensor out,
              Tensor dout, Tensor dh_last, const SelectiveScanSaved& saved,
              const SelectiveScanInputs& in, ChannelRange range, Write write_bc) {
  const ScanPlan plan = ScanPlan::of(in, range);
  ArenaScope scope(scratch);
  const auto floats = [&](std::int64_t n) {
    return scratch.allocate(DType::f32, {n}).template ptr<float>();
  };
  const std::int64_t states = plan.batch * plan.state_floats();
  const std::int64_t bc = plan.groups() * plan.batch * plan.seq * plan.state;
  visit_float(in.u.dtype(), [&]<class T>(T) {
    const Backward<T> f{.plan = plan,
                        .u = in.u.ptr<T>(),
                        .delta = in.delta.ptr<T>(),
                        .z = in.z.ptr<T>(),
                        .y = saved.y.ptr<T>(),
                        .dout = dout.ptr<T>(),
                        .b = in.b.ptr<float>(),
                        .c = in.c.ptr<float>(),
                        .delta_bias = in.delta_bias.ptr<float>(),
                        .d = in.d.ptr<float>(),
                        .rates = floats(plan.state_floats()),
                        .states = static_cast<const float*>(saved.states.raw()),
                        .doc_start = in.doc_start.ptr<std::int32_t>(),
                        .du = gradients.du.ptr<T>(),
                        .ddelta = gradients.ddelta.ptr<T>(),
                        .dz = gradients.dz.ptr<T>(),
                        .out = out.ptr<T>(),
                        .d_rate = floats(states),
                        .d_skip = floats(plan.batch * plan.inner),
                        .d_bias = floats(plan.batch * plan.inner),
                        .db = floats(bc),
                        .dc = floats(bc)};
    run_backward(stream, f, floats(states), gradients, dh_last, in, write_bc);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(backward);

void selective_scan_backward(Stream& stream, Arena& scratch,
                             const SelectiveScanGradients& gradients, Tensor out, Tensor dout,
                             Tensor dh_last, const SelectiveScanSaved& saved,
                             const SelectiveScanInputs& in, ChannelRange range, Write write_bc) {
  HWY_DYNAMIC_DISPATCH(backward)
  (stream, scratch, gradients, out, dout, dh_last, saved, in, range, write_bc);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

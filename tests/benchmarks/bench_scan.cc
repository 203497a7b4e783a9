// Time of the selective scan per (token, channel), beside the time that its exponentials alone
// take. Run through scripts/bench_scan.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>

#include "kernels/mamba/selective_scan.h"
#include "tests/support/tensors.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/benchmarks/bench_scan.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

void exponentials(float* y, const float* x, std::int64_t n) {
  for_lanes(n, [&](std::int64_t i, std::int64_t) HWY_ATTR { store(exp2_clamped(load(x + i)), y + i); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba {
namespace {

HWY_EXPORT(exponentials);

constexpr std::int64_t kBatch = 1, kSeq = 512, kInner = 2048, kState = 16;

/// One scan's tensors, in one dtype.
class Problem {
 public:
  explicit Problem(DType dtype) {
    const auto wide = [&](const char* name) {
      return test::GuardedTensor(dtype, {kBatch, kSeq, kInner},
                                 test::normal_values(kBatch * kSeq * kInner, 1, name));
    };
    const auto narrow = [&](const char* name) {
      return test::GuardedTensor(DType::f32, {kBatch, kSeq, kState},
                                 test::normal_values(kBatch * kSeq * kState, 1, name));
    };
    for (auto* t : {&u_, &delta_, &z_, &y_, &out_, &dout_, &du_, &ddelta_, &dz_}) {
      t->push_back(wide("wide"));
    }
    for (auto* t : {&b_, &c_, &db_, &dc_}) t->push_back(narrow("narrow"));
    for (auto* t : {&d_, &delta_bias_, &dd_, &ddelta_bias_}) {
      t->emplace_back(DType::f32, std::vector{kInner}, std::vector<double>(kInner, -2.0));
    }
    for (auto* t : {&a_log_, &da_log_}) {
      t->emplace_back(DType::f32, std::vector{kInner, kState},
                      test::normal_values(kInner * kState, 1, "a_log"));
    }
    states_.emplace_back(DType::u8,
                         std::vector{scan_states_bytes(kBatch, kSeq, kInner, kState)});
  }

  void forward(Stream& stream, Arena& scratch) {
    selective_scan_forward(stream, scratch, at(out_), {}, saved(), inputs());
  }
  void backward(Stream& stream, Arena& scratch) {
    selective_scan_backward(stream, scratch,
                            {at(du_), at(ddelta_), at(dz_), at(db_), at(dc_), at(ddelta_bias_),
                             at(dd_), at(da_log_), Tensor{}},
                            at(dout_), {}, saved(), inputs());
  }

 private:
  using Slot = std::vector<test::GuardedTensor>;
  static Tensor at(const Slot& slot) { return slot[0].tensor(); }
  SelectiveScanSaved saved() const { return {at(states_), at(y_)}; }
  SelectiveScanInputs inputs() const {
    return {at(u_), at(delta_), at(z_), at(b_), at(c_), at(delta_bias_), at(d_), at(a_log_), {}, {}};
  }
  Slot u_, delta_, z_, y_, out_, dout_, du_, ddelta_, dz_, b_, c_, db_, dc_;
  Slot d_, delta_bias_, dd_, ddelta_bias_, a_log_, da_log_, states_;
};

enum class Pass { forward, backward };

void report(benchmark::State& state, double units) {
  state.counters["ns/(t,d)"] = benchmark::Counter(
      units * 1e-9, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void scan(benchmark::State& state, Pass pass, DType dtype) {
  Problem problem(dtype);
  Stream stream = Stream::cpu(static_cast<int>(state.range(0)));
  Arena scratch;
  problem.forward(stream, scratch);
  for (auto _ : state) {
    if (pass == Pass::forward) {
      problem.forward(stream, scratch);
    } else {
      problem.backward(stream, scratch);
    }
  }
  report(state, static_cast<double>(kBatch * kSeq * kInner));
}

/// The kState exponentials of each (token, channel), from and to the first-level cache.
void exp_limit(benchmark::State& state) {
  alignas(64) std::array<float, 2048> x, y;
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = -0.01f * static_cast<float>(i);
  const auto run = HWY_DYNAMIC_DISPATCH(exponentials);
  for (auto _ : state) {
    run(y.data(), x.data(), static_cast<std::int64_t>(x.size()));
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  report(state, static_cast<double>(x.size()) / kState);
}

double best(const std::vector<double>& times) { return *std::min_element(times.begin(), times.end()); }

void configure(benchmark::internal::Benchmark* b) { b->ComputeStatistics("best", best); }

BENCHMARK(exp_limit)->Apply(configure);
BENCHMARK_CAPTURE(scan, forward_f32, Pass::forward, DType::f32)->Arg(1)->Apply(configure);
BENCHMARK_CAPTURE(scan, backward_f32, Pass::backward, DType::f32)->Arg(1)->Apply(configure);
BENCHMARK_CAPTURE(scan, forward_bf16, Pass::forward, DType::bf16)->Arg(1)->Apply(configure);
BENCHMARK_CAPTURE(scan, backward_bf16, Pass::backward, DType::bf16)->Arg(1)->Apply(configure);

/// Threads compare by wall time.
void configure_wall(benchmark::internal::Benchmark* b) {
  b->Arg(1)->Arg(2)->UseRealTime()->ComputeStatistics("best", best);
}
BENCHMARK_CAPTURE(scan, forward_f32_wall, Pass::forward, DType::f32)->Apply(configure_wall);
BENCHMARK_CAPTURE(scan, backward_f32_wall, Pass::backward, DType::f32)->Apply(configure_wall);

}  // namespace
}  // namespace jamba

BENCHMARK_MAIN();
#endif  // HWY_ONCE

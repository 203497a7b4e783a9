// Time of the selective scan per (token, channel), beside the time that its exponentials alone
// take on the same machine. Run through scripts/bench_scan.

#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <string>
#include <vector>

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

void exponentials(float* y, const float* x, float factor, std::int64_t n) {
  const VF f = hn::Set(DF(), factor);
  for_lanes(n, [&](std::int64_t i, std::int64_t)
                   HWY_ATTR { store(exp2_product<Underflow::impossible>(load(x + i), f), y + i); });
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
constexpr double kUnits = static_cast<double>(kBatch * kSeq * kInner);

/// One scan's tensors.
class Problem {
 public:
  explicit Problem(DType dtype) {
    inputs_ = {.u = make(dtype, {kBatch, kSeq, kInner}),
               .delta = make(dtype, {kBatch, kSeq, kInner}),
               .z = make(dtype, {kBatch, kSeq, kInner}),
               .b = make(DType::f32, {kBatch, kSeq, kState}),
               .c = make(DType::f32, {kBatch, kSeq, kState}),
               .delta_bias = make(DType::f32, {kInner}),
               .d = make(DType::f32, {kInner}),
               .a_log = make(DType::f32, {kInner, kState}),
               .h0 = {},
               .doc_start = {}};
    saved_ = {make(DType::u8, {scan_states_bytes(kBatch, kSeq, kInner, kState)}),
              make(dtype, {kBatch, kSeq, kInner})};
    gradients_ = {.du = make(dtype, {kBatch, kSeq, kInner}),
                  .ddelta = make(dtype, {kBatch, kSeq, kInner}),
                  .dz = make(dtype, {kBatch, kSeq, kInner}),
                  .db = make(DType::f32, {kBatch, kSeq, kState}),
                  .dc = make(DType::f32, {kBatch, kSeq, kState}),
                  .ddelta_bias = make(DType::f32, {kInner}),
                  .dd = make(DType::f32, {kInner}),
                  .da_log = make(DType::f32, {kInner, kState}),
                  .dh0 = {}};
    out_ = make(dtype, {kBatch, kSeq, kInner});
    dout_ = make(dtype, {kBatch, kSeq, kInner});
  }

  void forward(Stream& stream, Arena& scratch) {
    selective_scan_forward(stream, scratch, out_, {}, saved_, inputs_);
  }
  void backward(Stream& stream, Arena& scratch) {
    // Over dout, as a Mamba layer has it.
    selective_scan_backward(stream, scratch, gradients_, dout_, dout_, {}, saved_, inputs_);
  }

 private:
  /// Standard normal values, a short run of them repeated.
  Tensor make(DType dtype, const std::vector<std::int64_t>& dims) {
    const Tensor t = owned_.emplace_back(dtype, dims).tensor();
    if (dtype == DType::u8) return t;
    const std::vector<double> values =
        test::normal_values(4099, static_cast<std::uint64_t>(owned_.size()), "bench_scan");
    visit_float(dtype, [&]<class T>(T) {
      for (std::int64_t i = 0; i < t.numel(); ++i) {
        t.ptr<T>()[i] = T(static_cast<float>(values[static_cast<std::size_t>(i % 4099)]));
      }
    });
    return t;
  }

  std::vector<test::GuardedTensor> owned_;
  SelectiveScanInputs inputs_;
  SelectiveScanSaved saved_;
  SelectiveScanGradients gradients_;
  Tensor out_, dout_;
};

enum class Pass { forward, backward };

void scan(benchmark::State& state, Pass pass, DType dtype, int threads) {
  Problem problem(dtype);
  Stream stream = Stream::cpu(threads);
  Arena scratch;
  problem.forward(stream, scratch);
  scratch.reset();
  for (auto _ : state) {
    pass == Pass::forward ? problem.forward(stream, scratch) : problem.backward(stream, scratch);
  }
}

/// As many exponentials as a scan of kUnits, from and to the first-level cache.
void exponentials_alone(benchmark::State& state) {
  alignas(64) std::array<float, 2048> x, y;
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = -0.01f * static_cast<float>(i);
  const auto run = HWY_DYNAMIC_DISPATCH(exponentials);
  const std::int64_t n = static_cast<std::int64_t>(x.size());
  for (auto _ : state) {
    for (std::int64_t done = 0; done < kBatch * kSeq * kInner * kState; done += n) {
      run(y.data(), x.data(), 0.5f, n);
      benchmark::DoNotOptimize(y.data());
      benchmark::ClobberMemory();
    }
  }
}

/// Keeps the shortest repetition of each benchmark.
class BestTimes : public benchmark::BenchmarkReporter {
 public:
  struct Seconds {
    double cpu = std::numeric_limits<double>::infinity();
    double wall = std::numeric_limits<double>::infinity();
  };

  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      Seconds& best = best_[run.run_name.function_name];
      const auto n = static_cast<double>(run.iterations);
      best.cpu = std::min(best.cpu, run.cpu_accumulated_time / n);
      best.wall = std::min(best.wall, run.real_accumulated_time / n);
    }
  }
  /// Nanoseconds a (token, channel).
  Seconds operator[](const std::string& name) const {
    const auto it = best_.find(name);
    if (it == best_.end()) return {};
    return {it->second.cpu / kUnits * 1e9, it->second.wall / kUnits * 1e9};
  }

 private:
  std::map<std::string, Seconds> best_;
};

std::string name_of(const std::string& pass, DType dtype, int threads) {
  return fmt::format("{} {} {}", pass, dtype_name(dtype), threads);
}

void print_table(const BestTimes& best) {
  fmt::print("selective scan, seq {}, inner {}, state {}: ns a (token, channel), best repetition\n",
             kSeq, kInner, kState);
  fmt::print("  {:<20}{:>14}{:>14}{:>15}{:>9}\n", "", "CPU 1 thread", "wall 1 thread",
             "wall 2 threads", "ratio");
  fmt::print("  {:<20}{:>14.2f}\n", "exponentials alone", best["exponentials"].cpu);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const char* pass : {"forward", "backward"}) {
      const auto one = best[name_of(pass, dtype, 1)], two = best[name_of(pass, dtype, 2)];
      fmt::print("  {:<20}{:>14.2f}{:>14.2f}{:>15.2f}{:>9.2f}\n",
                 fmt::format("{} {}", pass, dtype_name(dtype)), one.cpu, one.wall, two.wall,
                 one.wall / two.wall);
    }
  }
}

}  // namespace
}  // namespace jamba

int main(int argc, char** argv) {
  using namespace jamba;
  benchmark::RegisterBenchmark("exponentials", exponentials_alone);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int threads : {1, 2}) {
      benchmark::RegisterBenchmark(name_of("forward", dtype, threads).c_str(), scan, Pass::forward,
                                   dtype, threads);
      benchmark::RegisterBenchmark(name_of("backward", dtype, threads).c_str(), scan,
                                   Pass::backward, dtype, threads);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  BestTimes best;
  benchmark::RunSpecifiedBenchmarks(&best);
  print_table(best);
}
#endif  // HWY_ONCE

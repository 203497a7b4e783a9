// GFLOP/s of the linear layers' products, beside what the vector units can do at most.
//
// Both counters are of the fastest repetition. wall_GFLOPS tells the truth on a quiet machine;
// cpu_GFLOPS divides by CPU seconds and multiplies by the threads, so other programs disturb it
// less: run with OMP_WAIT_POLICY=passive, or waiting counts as work.
// The peak is a loop of fused multiply-adds in registers, on one thread.

#include <benchmark/benchmark.h>

#include <time.h>

#include <algorithm>

#include "kernels/linear/grouped_matmul.h"
#include "tests/support/tensors.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/benchmarks/bench_matmul.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

/// Runs n rounds of independent multiply-adds; returns their FLOPs.
double multiply_add_rounds(std::int64_t n, float* out) {
  constexpr int kChains = 10;  // covers 2 units of latency 4 or 5
  VF c[kChains];
  // Different starts: equal chains would be computed once.
#pragma GCC unroll 10
  for (int i = 0; i < kChains; ++i) c[i] = hn::Set(DF(), out[i]);
  const VF a = hn::Set(DF(), 0.999f), b = hn::Set(DF(), 0.001f);
  for (std::int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 10
    for (int j = 0; j < kChains; ++j) c[j] = hn::MulAdd(c[j], a, b);
  }
#pragma GCC unroll 10
  for (int i = 0; i < kChains; ++i) out[i] = hn::GetLane(c[i]);
  return 2.0 * kChains * static_cast<double>(n * lanes());
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba {
namespace {

HWY_EXPORT(multiply_add_rounds);

double seconds(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class Run>
void measure(benchmark::State& state, double flops, int threads, const Run& run) {
  run();
  double wall = 1e30, cpu = 1e30;
  for ([[maybe_unused]] auto _ : state) {
    const double wall_begin = seconds(CLOCK_MONOTONIC);
    const double cpu_begin = seconds(CLOCK_PROCESS_CPUTIME_ID);
    run();
    cpu = std::min(cpu, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_begin);
    wall = std::min(wall, seconds(CLOCK_MONOTONIC) - wall_begin);
  }
  state.counters["wall_GFLOPS"] = flops / wall / 1e9;
  state.counters["cpu_GFLOPS"] = threads * flops / cpu / 1e9;
}

void peak(benchmark::State& state) {
  constexpr std::int64_t kRounds = 100000;
  float values[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const double flops = HWY_DYNAMIC_DISPATCH(multiply_add_rounds)(1, values) * kRounds;
  measure(state, flops, 1, [&] { HWY_DYNAMIC_DISPATCH(multiply_add_rounds)(kRounds, values); });
  benchmark::DoNotOptimize(values);
}

enum class Product { y, dx, dw };

/// Experts of `rows` rows each; one expert is a plain layer.
struct Problem {
  std::int64_t experts, rows, in, out;
};

void product(benchmark::State& state, const Problem& p, Product which, DType dtype, int threads) {
  const std::int64_t rows = p.experts * p.rows;
  const auto filled = [](DType t, const std::vector<std::int64_t>& dims) {
    test::GuardedTensor tensor(t, dims);
    visit_float(t, [&]<class T>(T) {
      T* data = tensor.tensor().ptr<T>();
      for (std::int64_t i = 0; i < tensor.tensor().numel(); ++i) {
        data[i] = T(static_cast<float>(i % 251 - 125) / 128.0f);
      }
    });
    return tensor;
  };
  const test::GuardedTensor x = filled(dtype, {rows, p.in}), y = filled(dtype, {rows, p.out});
  const test::GuardedTensor w = filled(dtype, {p.experts, p.out, p.in});
  const test::GuardedTensor dw = filled(DType::f32, {p.experts, p.out, p.in});
  std::vector<std::int64_t> offsets;
  for (std::int64_t e = 0; e <= p.experts; ++e) offsets.push_back(e * p.rows);
  Stream stream = Stream::cpu(threads);
  const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(p.in * p.out);
  measure(state, flops, threads, [&] {
    if (which == Product::y) {
      grouped_linear_forward(stream, y.tensor(), x.tensor(), w.tensor(), offsets);
    } else if (which == Product::dx) {
      grouped_linear_backward_input(stream, x.tensor(), y.tensor(), w.tensor(), offsets);
    } else {
      grouped_linear_backward_weight(stream, dw.tensor(), y.tensor(), x.tensor(), offsets);
    }
  });
}

void register_all() {
  benchmark::RegisterBenchmark("peak/threads:1", peak);
  constexpr const char* kProducts[] = {"y", "dx", "dw"};
  // Layers of a model of width 512, its experts (gate and up together, then down), decoding.
  for (const Problem& p :
       {Problem{1, 512, 512, 2048}, Problem{1, 1024, 512, 2048}, Problem{1, 1024, 1024, 512},
        Problem{16, 128, 512, 3584}, Problem{16, 128, 1792, 512}, Problem{1, 1, 512, 2048},
        Problem{1, 8, 512, 2048}}) {
    for (const Product which : {Product::y, Product::dx, Product::dw}) {
      if (p.rows <= 8 && which != Product::y) continue;
      for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const int threads : {1, 2}) {
          const std::string name =
              fmt::format("{}/{}/experts:{}/rows:{}/in:{}/out:{}/threads:{}",
                          kProducts[static_cast<int>(which)], dtype_name(dtype), p.experts, p.rows,
                          p.in, p.out, threads);
          benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
            product(state, p, which, dtype, threads);
          })->UseRealTime();
        }
      }
    }
  }
}

}  // namespace
}  // namespace jamba

int main(int argc, char** argv) {
  jamba::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
#endif  // HWY_ONCE

// GFLOP/s of the linear layers' products, ours beside oneDNN's, and beside what the vector units
// can do at most. oneDNN computes one product on all threads, or experts in parallel on one thread
// each, with sizes that it learns at run time, as experts need them.
//
// Both counters are of the fastest repetition. wall_GFLOPS tells the truth on a quiet machine;
// cpu_GFLOPS divides by CPU seconds and multiplies by the threads, so other programs disturb it
// less: run with OMP_WAIT_POLICY=passive, or waiting counts as work.
// The peak is a loop of fused multiply-adds in registers, on one thread.

#include <benchmark/benchmark.h>

#include <omp.h>
#include <time.h>

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

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

test::GuardedTensor filled(DType dtype, const std::vector<std::int64_t>& dims) {
  test::GuardedTensor tensor(dtype, dims);
  visit_float(dtype, [&]<class T>(T) {
    T* data = tensor.tensor().ptr<T>();
    for (std::int64_t i = 0; i < tensor.tensor().numel(); ++i) {
      data[i] = T(static_cast<float>(i % 251 - 125) / 128.0f);
    }
  });
  return tensor;
}

/// The tensors of a problem: y [rows, out] = x [rows, in] w^T, dw += dy^T x with dy in y.
struct Operands {
  test::GuardedTensor x, y, w, dw;
  double flops;

  Operands(const Problem& p, DType dtype)
      : x(filled(dtype, {p.experts * p.rows, p.in})),
        y(filled(dtype, {p.experts * p.rows, p.out})),
        w(filled(dtype, {p.experts, p.out, p.in})),
        dw(filled(DType::f32, {p.experts, p.out, p.in})),
        flops(2.0 * static_cast<double>(p.experts * p.rows) * static_cast<double>(p.in * p.out)) {}
};

void ours(benchmark::State& state, const Problem& p, Product which, DType dtype, int threads) {
  const Operands o(p, dtype);
  std::vector<std::int64_t> offsets;
  for (std::int64_t e = 0; e <= p.experts; ++e) offsets.push_back(e * p.rows);
  Stream stream = Stream::cpu(threads);
  Arena scratch;
  measure(state, o.flops, threads, [&] {
    if (which == Product::y) {
      grouped_linear_forward(stream, scratch, o.y.tensor(), o.x.tensor(), o.w.tensor(), offsets);
    } else if (which == Product::dx) {
      grouped_linear_backward_input(stream, scratch, o.x.tensor(), o.y.tensor(), o.w.tensor(),
                                    offsets);
    } else {
      grouped_linear_backward_weight(stream, scratch, o.dw.tensor(), o.y.tensor(), o.x.tensor(),
                                     offsets);
    }
  });
}

/// oneDNN's operand [m, k] or its transpose, and where expert e's part begins.
struct Matrix {
  dnnl::memory::desc desc;
  char* data;
  std::int64_t bytes_an_expert;

  Matrix(const Tensor& t, std::int64_t experts, std::int64_t rows, std::int64_t cols,
         bool transposed)
      : desc(transposed ? dnnl::memory::dims{cols, rows} : dnnl::memory::dims{rows, cols},
             t.dtype() == DType::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16,
             transposed ? dnnl::memory::dims{1, cols} : dnnl::memory::dims{cols, 1}),
        data(static_cast<char*>(t.raw())),
        bytes_an_expert(t.bytes() / experts) {}
  dnnl::memory at(const dnnl::engine& engine, std::int64_t expert) const {
    return dnnl::memory(desc, engine, data + expert * bytes_an_expert);
  }
  /// The same layout, sizes left open.
  dnnl::memory::desc open() const {
    constexpr std::int64_t kOpen = DNNL_RUNTIME_DIM_VAL;
    const bool columns = desc.data.format_desc.blocking.strides[0] == 1;
    return dnnl::memory::desc(
        {kOpen, kOpen}, desc.data_type(),
        columns ? dnnl::memory::dims{1, kOpen} : dnnl::memory::dims{kOpen, 1});
  }
};

void onednn(benchmark::State& state, const Problem& p, Product which, DType dtype, int threads) {
  const Operands o(p, dtype);
  const auto matrix = [&](const test::GuardedTensor& t, std::int64_t rows, std::int64_t cols,
                          bool transposed = false) {
    return Matrix(t.tensor(), p.experts, rows, cols, transposed);
  };
  const bool is_y = which == Product::y, is_dw = which == Product::dw;
  const Matrix a = is_y ? matrix(o.x, p.rows, p.in) : matrix(o.y, p.rows, p.out, is_dw);
  const Matrix b = is_dw ? matrix(o.x, p.rows, p.in) : matrix(o.w, p.out, p.in, is_y);
  const Matrix c = is_y ? matrix(o.y, p.rows, p.out)
                        : (is_dw ? matrix(o.dw, p.out, p.in) : matrix(o.x, p.rows, p.in));
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::primitive_attr attributes;
  if (is_dw) {
    dnnl::post_ops accumulate;
    accumulate.append_sum(1.0f);
    attributes.set_post_ops(accumulate);
  }
  dnnl::matmul product;
  try {
    product = dnnl::matmul({dnnl::matmul::desc(a.open(), b.open(), c.open()), attributes, engine});
  } catch (const dnnl::error&) {
    state.SkipWithError("oneDNN has no such product on this CPU");
    return;
  }
  const auto run = [&](std::int64_t e) {
    dnnl::stream stream(engine);
    product.execute(stream, {{DNNL_ARG_SRC, a.at(engine, e)},
                             {DNNL_ARG_WEIGHTS, b.at(engine, e)},
                             {DNNL_ARG_DST, c.at(engine, e)}});
  };
  omp_set_num_threads(threads);
  measure(state, o.flops, threads, [&] {
    if (p.experts == 1) return run(0);
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t e = 0; e < p.experts; ++e) run(e);
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
          for (const auto& [who, run] :
               {std::pair{"jamba/", &ours}, std::pair{"oneDNN/", &onednn}}) {
            benchmark::RegisterBenchmark((who + name).c_str(), [=](benchmark::State& state) {
              run(state, p, which, dtype, threads);
            })->UseRealTime();
          }
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

// Speed of causal attention on one thread, beside the machine's float32 multiply-add peak.
// Counters: FLOP/s counts visible (query, key) pairs only, 4 head_dim operations each forward and
// 10 backward; of_peak is its share of the peak that this program measures first.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "kernels/attention/attention.h"
#include "tests/support/tensors.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/benchmarks/bench_attention.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

constexpr int kChains = 12;  // enough independent sums to hide the latency of a multiply-add

/// Runs `rounds` multiply-adds on each of 12 vectors and returns their number of operations.
double multiply_add(std::int64_t rounds, float* result) {
  VF sum[kChains];
  for (VF& s : sum) s = hn::Set(DF(), *result);
  const VF factor = hn::Set(DF(), 0.999f);
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (VF& s : sum) s = hn::MulAdd(s, factor, factor);
  }
  VF total = hn::Zero(DF());
  for (const VF& s : sum) total = hn::Add(total, s);
  *result = sum_lanes(total);
  return 2.0 * kChains * static_cast<double>(rounds * lanes());
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba {
namespace {

HWY_EXPORT(multiply_add);

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Best of several short runs, as other processes can only slow them down.
double measure_peak() {
  double best = 0;
  for (int i = 0; i < 20; ++i) {
    float value = 0.5f;
    const double begin = thread_seconds();
    const double operations = HWY_DYNAMIC_DISPATCH(multiply_add)(2'000'000, &value);
    benchmark::DoNotOptimize(value);
    best = std::max(best, operations / (thread_seconds() - begin));
  }
  return best;
}

struct Problem {
  AttentionShape shape;
  std::vector<test::GuardedTensor> q, k, v, out, dout, dq, dk, dv, lse;

  Problem(const AttentionShape& s, DType dtype) : shape(s) {
    const std::vector<std::int64_t> wide = {s.batch * s.seq, s.num_heads * s.head_dim};
    const std::vector<std::int64_t> narrow = {s.batch * s.seq_keys, s.num_kv_heads * s.head_dim};
    const auto add = [&](auto& to, const std::vector<std::int64_t>& dims, const char* name) {
      to.emplace_back(dtype, dims, test::normal_values(dims[0] * dims[1], 1, name));
    };
    for (auto* t : {&q, &out, &dout, &dq}) add(*t, wide, "wide");
    for (auto* t : {&k, &v, &dk, &dv}) add(*t, narrow, "narrow");
    lse.emplace_back(DType::f32, std::vector{s.batch, s.num_heads, s.seq});
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(shape.head_dim)); }
  void forward(Stream& stream, Arena& scratch) {
    attention_forward(stream, scratch, out[0].tensor(), lse[0].tensor(), q[0].tensor(),
                      k[0].tensor(), v[0].tensor(), {}, shape, scale());
  }
  void backward(Stream& stream, Arena& scratch) {
    attention_backward(stream, scratch, dq[0].tensor(), dk[0].tensor(), dv[0].tensor(),
                       dout[0].tensor(), q[0].tensor(), k[0].tensor(), v[0].tensor(),
                       out[0].tensor(), lse[0].tensor(), {}, shape, scale());
  }
};

/// Arguments: queries, keys, heads, kv heads, head_dim.
AttentionShape shape_of(const benchmark::State& state) {
  return {.batch = 1,
          .seq = state.range(0),
          .seq_keys = state.range(1),
          .num_heads = state.range(2),
          .num_kv_heads = state.range(3),
          .head_dim = state.range(4)};
}

template <class Step>
void run(benchmark::State& state, double operations_per_pair, Step&& step) {
  static const double peak = measure_peak();
  const AttentionShape s = shape_of(state);
  Stream stream = Stream::cpu(1);
  Arena scratch;
  step(stream, scratch);
  scratch.reset();
  double best = INFINITY;
  for (auto _ : state) {
    const double begin = thread_seconds();
    step(stream, scratch);
    const double seconds = thread_seconds() - begin;
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
  }
  const auto queries = static_cast<double>(s.seq), keys = static_cast<double>(s.seq_keys);
  const double pairs = queries * (keys - queries) + queries * (queries + 1) / 2;
  const double operations = operations_per_pair * pairs * static_cast<double>(s.num_heads) *
                            static_cast<double>(s.head_dim);
  state.counters["best_FLOP/s"] = operations / best;
  state.counters["of_peak"] = operations / best / peak;
}

void forward(benchmark::State& state, DType dtype) {
  Problem p(shape_of(state), dtype);
  run(state, 4, [&](Stream& s, Arena& a) { p.forward(s, a); });
}

void backward(benchmark::State& state, DType dtype) {
  Problem p(shape_of(state), dtype);
  Stream stream = Stream::cpu(1);
  Arena scratch;
  p.forward(stream, scratch);  // a softmax that the random `out` and an empty `lse` would not be
  run(state, 10, [&](Stream& s, Arena& a) { p.backward(s, a); });
}

void training_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"seq", "keys", "heads", "kv", "dim"})->UseManualTime();
  b->Args({256, 256, 4, 2, 64})->Args({512, 512, 8, 2, 64})->Args({512, 512, 4, 4, 64});
  b->Args({2048, 2048, 4, 1, 64})->Args({4096, 4096, 1, 1, 64})->Args({1024, 1024, 4, 1, 128});
}

void decoding_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"seq", "keys", "heads", "kv", "dim"})->UseManualTime();
  b->Args({1, 2048, 8, 2, 64})->Args({1, 2048, 4, 4, 64});
}

BENCHMARK_CAPTURE(forward, float32, DType::f32)->Apply(training_shapes);
BENCHMARK_CAPTURE(forward, bfloat16, DType::bf16)->Apply(training_shapes);
BENCHMARK_CAPTURE(backward, float32, DType::f32)->Apply(training_shapes);
BENCHMARK_CAPTURE(backward, bfloat16, DType::bf16)->Apply(training_shapes);
BENCHMARK_CAPTURE(forward, decode, DType::f32)->Apply(decoding_shapes);

}  // namespace
}  // namespace jamba

BENCHMARK_MAIN();
#endif  // HWY_ONCE

#include "kernels/linear/peak_rate.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/core/backend.h"
#include "kernels/core/memory.h"
#include "kernels/core/rng.h"
#include "kernels/linear/best_time.h"

namespace jamba {
namespace {

constexpr std::int64_t kSize = 1536;

/// oneDNN takes the number of threads from OpenMP's setting for the calling thread.
class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
  }
  ~ThreadCount() { omp_set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

/// Zeros would draw less power, and so run at a higher clock than a real product.
void fill(Tensor matrix) {
  const CounterRng rng(1, "peak");
  visit_float(matrix.dtype(), [&]<class T>(T) {
    T* values = matrix.ptr<T>();
    for (std::int64_t i = 0; i < matrix.numel(); ++i) {
      // A value for each 64 is enough: the arithmetic does not look at them.
      values[i] = i % 64 == 0 ? T(static_cast<float>(rng.uniform(static_cast<std::uint64_t>(i))))
                              : values[i - 1];
    }
  });
}

/// 0 where oneDNN has no product of this dtype.
double best_gflops(DType dtype) {
  using dnnl::memory;
  const auto type = dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
  const memory::desc square({kSize, kSize}, type, memory::format_tag::ab);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  dnnl::matmul product;
  try {
    product = dnnl::matmul({dnnl::matmul::desc(square, square, square), engine});
  } catch (const dnnl::error& e) {
    if (e.status == dnnl_unimplemented) return 0;
    throw;
  }
  const std::int64_t bytes = kSize * kSize * dtype_bytes(dtype);
  const Buffer x(bytes), w(bytes), y(bytes);
  fill(x.tensor(dtype, {kSize, kSize}));
  fill(w.tensor(dtype, {kSize, kSize}));
  const auto run = [&] {
    product.execute(stream, {{DNNL_ARG_SRC, memory(square, engine, x.data())},
                             {DNNL_ARG_WEIGHTS, memory(square, engine, w.data())},
                             {DNNL_ARG_DST, memory(square, engine, y.data())}});
    stream.wait();
  };
  return 2.0 * kSize * kSize * kSize / best_seconds(run) * 1e-9;
}

}  // namespace

namespace cuda {
JAMBA_WEAK decltype(jamba::measure_peak_gflops) measure_peak_gflops;
}

double measure_peak_gflops(Stream& stream, DType dtype) {
  if (stream.device().kind == DeviceKind::cuda)
    return backend_function(&cuda::measure_peak_gflops, "measure_peak_gflops")(stream, dtype);
  const ThreadCount threads(stream.num_threads());
  const double gflops = best_gflops(dtype);
  return gflops > 0 ? gflops : best_gflops(DType::f32);
}

}  // namespace jamba

#include <algorithm>

#include "kernels/core/cuda/stream_cuda.h"
#include "kernels/core/memory.h"
#include "kernels/linear/best_time.h"
#include "kernels/linear/peak_rate.h"
#include "kernels/linear/product_cuda.h"

namespace jamba::cuda {

double measure_peak_gflops(Stream& stream, DType dtype) {
  constexpr int kProducts = 4;  // in one timing
  // Large enough for every multiprocessor to have several tiles.
  const std::int64_t size =
      std::min<std::int64_t>(8192, 64 * properties(stream).multiProcessorCount);
  const std::int64_t bytes = size * size * dtype_bytes(dtype);
  // Zeros: a device may run a little faster on them than on numbers.
  const Buffer x(bytes, stream.device()), w(bytes, stream.device()), y(bytes, stream.device());
  Arena scratch(stream.device());
  const auto run = [&] {
    for (int i = 0; i < kProducts; ++i) {
      multiply(stream, scratch,
               {Form::y, Write::overwrite, dtype, dtype, size, size, size, x.data(), w.data(),
                y.data()});
    }
    stream.synchronize();
  };
  const auto n = static_cast<double>(size);
  return kProducts * 2.0 * n * n * n / best_seconds(run) * 1e-9;
}

}  // namespace jamba::cuda

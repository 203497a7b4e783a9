#include "trainer/metrics/peak.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <string>

#include "kernels/core/errors.h"
#include "kernels/core/memory.h"
#include "kernels/core/rng.h"
#include "kernels/linear/matmul.h"

namespace jamba {
namespace {

constexpr std::int64_t kSize = 1536;
constexpr double kSeconds = 0.2;

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

}  // namespace

std::int64_t peak_memory_bytes() {
  constexpr const char* kPath = "/proc/self/status";
  std::ifstream status(kPath);
  if (!status) {
    throw IoError(fmt::format("cannot read {}: {} (errno {}); it tells a process's peak memory",
                              kPath, std::strerror(errno), errno));
  }
  for (std::string key; status >> key; std::getline(status, key)) {
    std::int64_t kib = 0;
    if (key == "VmHWM:" && status >> kib) return kib * 1024;
  }
  throw IoError(fmt::format("{} has no line 'VmHWM: <number> kB'", kPath));
}

double measure_peak_gflops(Stream& stream, DType dtype) {
  using Clock = std::chrono::steady_clock;
  const std::int64_t bytes = kSize * kSize * dtype_bytes(dtype);
  const Buffer x(bytes, stream.device()), w(bytes, stream.device()), y(bytes, stream.device());
  const Tensor tx = x.tensor(dtype, {kSize, kSize}), tw = w.tensor(dtype, {kSize, kSize}),
               ty = y.tensor(dtype, {kSize, kSize});
  fill(tx);
  fill(tw);
  const Profile profile = stream.profile();
  double best = std::numeric_limits<double>::infinity();
  linear_forward(stream, ty, tx, tw);
  stream.synchronize();
  const Clock::time_point start = Clock::now();
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  do {
    const Clock::time_point begin = Clock::now();
    linear_forward(stream, ty, tx, tw);
    stream.synchronize();
    best = std::min(best, seconds_since(begin));
  } while (seconds_since(start) < kSeconds);
  stream.profile() = profile;
  return 2.0 * kSize * kSize * kSize / best * 1e-9;
}

}  // namespace jamba

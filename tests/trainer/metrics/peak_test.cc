#include "trainer/metrics/peak.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>

#include "kernels/core/memory.h"
#include "kernels/linear/matmul.h"

namespace jamba {
namespace {

TEST(PeakMemory, RisesWithUseAndAgreesWithTheOtherAccountOfIt) {
  constexpr std::int64_t kBytes = std::int64_t{256} << 20;
  const std::int64_t before = peak_memory_bytes();
  {
    const Buffer block(kBytes);
    std::memset(block.data(), 1, kBytes);
  }
  const std::int64_t after = peak_memory_bytes();
  EXPECT_GE(after, before + kBytes / 2);
  rusage usage{};
  ASSERT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
  const double other = static_cast<double>(usage.ru_maxrss) * 1024;
  EXPECT_NEAR(static_cast<double>(after), other, 0.01 * other);
}

/// The best rate of a few products of another shape, by the FLOPs that the operation counts.
double rate_of_products(Stream& stream) {
  constexpr std::int64_t kSize = 1280;
  const Buffer x(kSize * kSize * 4), w(kSize * kSize * 4), y(kSize * kSize * 4);
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    stream.profile().reset();
    linear_forward(stream, y.tensor(DType::f32, {kSize, kSize}),
                   x.tensor(DType::f32, {kSize, kSize}), w.tensor(DType::f32, {kSize, kSize}));
    best = std::max(best, stream.profile().matmul_flops / stream.profile()[Part::matmul] * 1e-9);
  }
  return best;
}

TEST(PeakGflops, IsTheRateOfLargeProducts) {
  Stream stream = Stream::cpu(1);
  // Half or twice the rate is a miscount of FLOPs; other programs may spoil a single attempt.
  double ratio = 0;
  for (int attempt = 0; attempt < 5 && !(ratio > 0.7 && ratio < 1.4); ++attempt) {
    ratio = measure_peak_gflops(stream) / rate_of_products(stream);
  }
  EXPECT_TRUE(ratio > 0.7 && ratio < 1.4) << ratio;
}

TEST(PeakGflops, LeavesTheProfileAlone) {
  Stream stream = Stream::cpu(1);
  stream.profile()[Part::matmul] = 7;
  stream.profile().matmul_flops = 11;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    EXPECT_GT(measure_peak_gflops(stream, dtype), 0);
    EXPECT_EQ(stream.profile()[Part::matmul], 7);
    EXPECT_EQ(stream.profile().matmul_flops, 11);
  }
}

}  // namespace
}  // namespace jamba

#include "kernels/linear/peak_rate.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>

#include "kernels/core/memory.h"
#include "kernels/linear/matmul.h"
#include "tests/support/device.h"

namespace jamba {
namespace {

#ifdef NDEBUG  // else our products are too slow to compare with
/// The best rate of a few products of another shape, by the FLOPs that the operation counts.
double rate_of_products(Stream& stream) {
  constexpr std::int64_t kSize = 1280;
  const Buffer x(kSize * kSize * 4), w(kSize * kSize * 4), y(kSize * kSize * 4);
  Arena scratch;
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    stream.profile().reset();
    linear_forward(stream, scratch, y.tensor(DType::f32, {kSize, kSize}),
                   x.tensor(DType::f32, {kSize, kSize}), w.tensor(DType::f32, {kSize, kSize}));
    best = std::max(best, stream.profile().matmul_flops / stream.profile()[Part::matmul] * 1e-9);
  }
  return best;
}

TEST(PeakGflops, IsTheRateOfLargeProducts) {
  if (test::on_cuda()) GTEST_SKIP() << "the profile counts the time to issue a product there";
  Stream stream = test::make_stream(1);
  // Half or twice the rate is a miscount of FLOPs; other programs may spoil a single attempt.
  double ratio = 0;
  for (int attempt = 0; attempt < 5 && !(ratio > 0.7 && ratio < 1.4); ++attempt) {
    ratio = measure_peak_gflops(stream) / rate_of_products(stream);
  }
  EXPECT_TRUE(ratio > 0.7 && ratio < 1.4) << ratio;
}
#endif

TEST(PeakGflops, RunsInEveryDtypeAndLeavesTheNumberOfThreadsAlone) {
  Stream stream = test::make_stream(1);
  const int before = omp_get_max_threads();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    EXPECT_GT(measure_peak_gflops(stream, dtype), 0);
    EXPECT_EQ(omp_get_max_threads(), before);
  }
}

}  // namespace
}  // namespace jamba

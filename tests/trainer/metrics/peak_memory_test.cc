#include "trainer/metrics/peak_memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>

#include "kernels/core/memory.h"

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

}  // namespace
}  // namespace jamba

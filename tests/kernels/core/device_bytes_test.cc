#include <gtest/gtest.h>

#include "kernels/core/memory.h"
#include "tests/support/device.h"

namespace jamba {
namespace {

TEST(PeakDeviceBytes, IsOfWhatLivesTogether) {
  if (!test::on_cuda()) GTEST_SKIP() << "no CUDA device";
  const std::int64_t before = peak_device_bytes();
  {
    const Buffer a(1000, test::device());
    const Buffer host(1 << 20), pinned = Buffer::pinned(1 << 20);
  }
  EXPECT_EQ(peak_device_bytes(), before + 1000);
  const Buffer b(700, test::device());
  {
    Buffer c(600, test::device());
    const Buffer moved = std::move(c);
  }
  EXPECT_EQ(peak_device_bytes(), before + 1300);
}

}  // namespace
}  // namespace jamba

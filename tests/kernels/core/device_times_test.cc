// Where the time of a device's work is counted, by the emulation's streams: they do nothing when
// work is issued, all of it when the host waits.
#include "kernels/core/device_times.h"

#include <gtest/gtest.h>

#include <thread>

#include "kernels/core/cuda/stream_cuda.h"
#include "tests/support/cuda_emulation/emulation.h"

namespace jamba {
namespace {

constexpr double kWork = 0.02;

void work(Stream& stream) {
  cuda_emulation::enqueue(cuda::native(stream), "work", [] {
    std::this_thread::sleep_for(std::chrono::duration<double>(kWork));
    return true;
  });
}

/// The step: two pieces of work in a scope, one outside all.
void step(Stream& stream) {
  for (int i = 0; i < 2; ++i) {
    const ProfileScope scope(stream.profile(), Part::scan);
    work(stream);
  }
  work(stream);
  { const ProfileScope scope(stream.profile(), Part::rest); }
}

TEST(DeviceTimes, CountWhatTheDeviceDidInEachScope) {
  Stream stream = Stream::on({DeviceKind::cuda, 0});
  for (int repetition = 0; repetition < 2; ++repetition) {
    stream.profile().reset();
    begin_device_times(stream);
    step(stream);
    end_device_times(stream);
    EXPECT_GE(stream.profile()[Part::scan], 2 * kWork);
    EXPECT_LT(stream.profile()[Part::scan], 3 * kWork);
    EXPECT_LT(stream.profile()[Part::rest], kWork);
    EXPECT_EQ(stream.profile()[Part::matmul], 0.0);
  }
}

TEST(DeviceTimes, CountAWaitForAnotherStream) {
  Stream stream = Stream::on({DeviceKind::cuda, 0}), other = Stream::on({DeviceKind::cuda, 0});
  begin_device_times(stream);
  work(other);
  {
    const ProfileScope scope(stream.profile(), Part::communication);
    stream.wait_for(other);
  }
  end_device_times(stream);
  EXPECT_GT(stream.profile()[Part::communication], 0.0);
}

TEST(DeviceTimes, OutsideOfThemTheHostsTimeIsCounted) {
  Stream stream = Stream::on({DeviceKind::cuda, 0});
  step(stream);
  stream.synchronize();
  EXPECT_LT(stream.profile()[Part::scan], kWork);
}

}  // namespace
}  // namespace jamba

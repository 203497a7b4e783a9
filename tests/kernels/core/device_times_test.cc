// Where the time of a device's work is counted, by the emulation's streams: they do nothing when
// work is issued, all of it when the host waits.
#include "kernels/core/device_times.h"

#include <gtest/gtest.h>

#include <thread>

#include "kernels/core/clock.h"
#include "kernels/core/cuda/stream_cuda.h"
#include "tests/support/cuda_emulation/emulation.h"

namespace jamba {
namespace {

constexpr double kWork = 0.02;

void sleep() { std::this_thread::sleep_for(std::chrono::duration<double>(kWork)); }

void work(Stream& stream) {
  cuda_emulation::enqueue(cuda::native(stream), "work", [] {
    sleep();
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
    const Clock::time_point begin = Clock::now();
    begin_device_times(stream);
    step(stream);
    end_device_times(stream);
    Profile& profile = stream.profile();
    EXPECT_GE(profile[Part::scan], 2 * kWork);
    // What is in no scope is in no part.
    EXPECT_LT(profile[Part::scan] + profile[Part::rest] + kWork, seconds_since(begin));
    EXPECT_EQ(profile[Part::matmul], 0.0);
  }
}

TEST(DeviceTimes, CountAWaitForAnotherStream) {
  Stream stream = Stream::on({DeviceKind::cuda, 0}), other = Stream::on({DeviceKind::cuda, 0});
  bool in_scope = false;  // the other one's work begins once the stream is there
  begin_device_times(stream);
  cuda_emulation::enqueue(cuda::native(other), "work once it is waited for", [&] {
    if (!in_scope) return false;
    sleep();
    return true;
  });
  {
    const ProfileScope scope(stream.profile(), Part::communication);
    cuda_emulation::enqueue(cuda::native(stream), "in the scope", [&] { return in_scope = true; });
    stream.wait_for(other);
  }
  end_device_times(stream);
  EXPECT_GE(stream.profile()[Part::communication], kWork);
}

TEST(DeviceTimes, OutsideOfThemTheHostsTimeIsCounted) {
  Stream stream = Stream::on({DeviceKind::cuda, 0});
  begin_device_times(stream);
  end_device_times(stream);
  bool ran = false;
  {
    const ProfileScope scope(stream.profile(), Part::scan);
    cuda_emulation::enqueue(cuda::native(stream), "work", [&] { return ran = true; });
  }
  EXPECT_FALSE(ran);
  EXPECT_GT(stream.profile()[Part::scan], 0.0);
  stream.synchronize();
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace jamba

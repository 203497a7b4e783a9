// Groups of ranks whose tensors lie on CUDA devices, one a rank.

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "kernels/core/backend.h"
#include "kernels/core/cuda/stream_cuda.h"
#include "tests/parallel/collective_cases.h"
#include "tests/parallel/device_mirror.h"
#include "tests/support/mpi_main.h"
#include "tests/support/tensors.h"

namespace cuda_emulation {
JAMBA_WEAK void set_seed(std::uint64_t seed);
JAMBA_WEAK void break_connections(bool broken);
}  // namespace cuda_emulation

namespace jamba {
namespace {

using ::testing::HasSubstr;

Communicator& world() { return test::mpi_session().world(); }

void sleep_s(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

class NcclGroup : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_devices().count < test::mpi_session().local_size())
      GTEST_SKIP() << "fewer CUDA devices than ranks";
    group_ = world().split("world", 0);
    group_->set_guards({.timeout_seconds = 60});
  }
  /// The group, with tensors of the host that travel on devices.
  Communicator& mirror() {
    if (mirror_ == nullptr) mirror_ = test::make_device_mirror(std::move(group_), device_);
    mirror_->set_guards({.timeout_seconds = 60});
    return *mirror_;
  }
  Tensor floats(std::int64_t n, float value) {
    Buffer& buffer = buffers_.emplace_back(n * 4, device_, Fill::untouched);
    const Tensor tensor = buffer.tensor(DType::f32, {n});
    std::vector<float> values(static_cast<std::size_t>(n), value);
    Stream stream = Stream::on(device_);
    copy(stream, tensor, Tensor(values.data(), DType::f32, {n}));
    stream.synchronize();
    return tensor;
  }
  static std::vector<double> same(std::int64_t n, double value) {
    return std::vector<double>(static_cast<std::size_t>(n), value);
  }
  bool is_last() const { return world().rank() == world().size() - 1; }
  /// The sum of rank + 1 over the ranks.
  static double sum_of_ranks() { return world().size() * (world().size() + 1) / 2.0; }

  Device device_{DeviceKind::cuda, test::mpi_session().local_rank()};
  std::vector<Buffer> buffers_;
  std::unique_ptr<Communicator> group_, mirror_;
};

TEST_F(NcclGroup, ReducesInPlaceOnAllRanks) { test::check_all_reduce(mirror()); }
TEST_F(NcclGroup, ReducesInTheBackground) { test::check_start_all_reduce(mirror()); }
TEST_F(NcclGroup, GathersInRankOrder) { test::check_all_gather(mirror()); }
TEST_F(NcclGroup, BroadcastsFromEachRoot) { test::check_broadcast(mirror()); }
TEST_F(NcclGroup, RepeatsItsBits) { test::check_same_bits(mirror()); }
TEST_F(NcclGroup, SumsInTheOneOrder) { test::check_sums(mirror()); }
TEST_F(NcclGroup, AddsPairwise) { test::check_sum_order(mirror()); }
TEST_F(NcclGroup, SendsRowsToEachRank) { test::check_all_to_all(mirror()); }
TEST_F(NcclGroup, GathersInTheBackground) { test::check_gather_in_the_background(mirror()); }
TEST_F(NcclGroup, SendsMessagesInOrder) { test::check_messages(mirror()); }
TEST_F(NcclGroup, SplitsByTwoAxes) { test::check_splits(mirror()); }
TEST_F(NcclGroup, CountsBytesSent) { test::check_bytes_sent(mirror()); }
TEST_F(NcclGroup, TracesOperationsAndWaits) { test::check_trace(mirror()); }

TEST_F(NcclGroup, OperationsComeBetweenWhatTheStreamDoesBeforeAndAfter) {
  const std::int64_t n = 5000;
  Stream stream = Stream::on(device_);
  const Tensor mine = floats(n, static_cast<float>(world().rank() + 1)), other = floats(n, -1);
  const Tensor x = floats(n, -1), y = floats(n, -1);
  const Tensor all = floats(n * world().size(), -1);
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(seed);
    if (&cuda_emulation::set_seed != nullptr) cuda_emulation::set_seed(seed);
    copy(stream, x, mine);
    group_->all_reduce(stream, x);
    copy(stream, y, x);
    copy(stream, x, other);  // after the sum has left it
    PendingCollective gather = group_->start_all_gather(stream, all, y);
    gather.wait();
    copy(stream, y, other);  // after others have it
    group_->broadcast(stream, all, 0);
    stream.synchronize();
    EXPECT_EQ(test::to_doubles(all), same(n * world().size(), sum_of_ranks()));
    EXPECT_EQ(test::to_doubles(x), same(n, -1));
  }
}

TEST_F(NcclGroup, WaitingHoldsUpTheStreamNotTheHost) {
  Stream stream = Stream::on(device_);
  group_->prepare(stream, Messages::none);
  const Tensor x = floats(100, static_cast<float>(world().rank() + 1));
  if (!is_last()) group_->all_reduce(stream, x);
  world().barrier();
  if (is_last()) group_->all_reduce(stream, x);
  stream.synchronize();
  EXPECT_EQ(test::to_doubles(x), same(100, sum_of_ranks()));
}

TEST_F(NcclGroup, MessagesUpAndDownDoNotHoldEachOtherUp) {
  if (world().size() == 1) GTEST_SKIP() << "no messages";
  Stream forward = Stream::on(device_), backward = Stream::on(device_);
  group_->prepare(forward, Messages::some);
  const int rank = world().rank(), last = world().size() - 1;
  const Tensor x = floats(100, static_cast<float>(rank)), out = floats(100, -1);
  // The first rank expects from the last what that only sends once the first one's has come.
  if (rank == 0) {
    PendingCollective answer = group_->start_receive(backward, out, last);
    group_->start_send(forward, x, last).wait();
    answer.wait();
    backward.synchronize();
    EXPECT_EQ(test::to_doubles(out), same(100, 0));
  } else if (rank == last) {
    group_->start_receive(forward, out, 0).wait();
    forward.synchronize();
    group_->start_send(forward, out, 0).wait();
  }
  forward.synchronize();
  world().barrier();
}

TEST_F(NcclGroup, RefusesMessagesThatItWasNotPreparedFor) {
  if (world().size() == 1) GTEST_SKIP() << "no messages";
  Stream stream = Stream::on(device_);
  group_->prepare(stream, Messages::none);
  const Tensor x = floats(1, 0);
  EXPECT_THROW(group_->start_send(stream, x, world().rank() == 0 ? 1 : 0), LogicError);
}

TEST_F(NcclGroup, GrowsWhileAnOperationWaitsForRanksThatComeLater) {
  if (world().size() == 1) GTEST_SKIP() << "no other ranks";
  Stream stream = Stream::on(device_), messages = Stream::on(device_);
  group_->prepare(stream, Messages::some);
  const Tensor small = floats(10, 1), large = floats(100000, 1), out = floats(10, -1);
  group_->all_reduce(stream, small);
  const int last = world().size() - 1;
  PendingCollective message;
  if (world().rank() == 0) message = group_->start_receive(messages, out, last);
  group_->all_reduce(stream, large);
  world().barrier();
  if (is_last()) group_->start_send(stream, small, 0).wait();
  message.wait();
  messages.synchronize();
  stream.synchronize();
  EXPECT_EQ(test::to_doubles(large), same(100000, world().size()));
  EXPECT_EQ(test::to_doubles(out), same(10, world().rank() == 0 ? world().size() : -1));
  world().barrier();
}

/// What `body` throws.
std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no error";
}

class LostRank : public NcclGroup {
 protected:
  void SetUp() override {
    NcclGroup::SetUp();
    if (world().size() == 1) GTEST_SKIP() << "a group of one loses nobody";
  }
  void TearDown() override {
    // Ranks leave the group without having waited for each other.
    group_.reset();
    world().barrier();
  }
};

TEST_F(LostRank, EndsTheHostsWaitWithWords) {
  const Tensor x = floats(10, 1), y = floats(10, 1);
  std::optional<Stream> stream(Stream::on(device_));
  const std::unique_ptr<Communicator> same_ranks = group_->split("other", 0);
  group_->all_reduce(*stream, x);
  same_ranks->all_reduce(*stream, x);
  stream->synchronize();
  world().barrier();
  if (is_last()) return;
  // Another stream where the first one was.
  stream.emplace(Stream::on(device_));
  group_->set_guards({.timeout_seconds = 0.5});
  PendingCollective other = same_ranks->start_all_reduce(*stream, y);
  group_->all_reduce(*stream, x);
  EXPECT_EQ(error_of([&] { stream->synchronize(); }),
            "all_reduce sum of float32[10] over world (collectives): waited 0.5 s for other ranks");
  // As unwinding does, in any order.
  buffers_.clear();
  stream->synchronize();
  EXPECT_THAT(error_of([&] { group_->broadcast(*stream, x, 0); }), HasSubstr("unusable"));
  EXPECT_THAT(error_of([&] { same_ranks->broadcast(*stream, x, 0); }), HasSubstr("unusable"));
}

TEST_F(LostRank, IsWhatNcclMayReportInTheBackground) {
  if (&cuda_emulation::break_connections == nullptr) GTEST_SKIP() << "only a twin breaks at will";
  Stream stream = Stream::on(device_);
  const Tensor x = floats(10, 1);
  group_->all_reduce(stream, x);
  stream.synchronize();
  world().barrier();
  if (is_last()) return;
  group_->all_reduce(stream, x);
  cuda_emulation::break_connections(true);
  EXPECT_THAT(error_of([&] { stream.synchronize(); }),
              HasSubstr("all_reduce sum of float32[10] over world (collectives): NCCL: "));
  cuda_emulation::break_connections(false);
  EXPECT_THAT(error_of([&] { group_->broadcast(stream, x, 0); }), HasSubstr("unusable"));
}

TEST_F(LostRank, EndsACopyToTheHost) {
  Stream stream = Stream::on(device_);
  group_->prepare(stream, Messages::some);
  world().barrier();
  if (world().rank() != 0) return;
  const Tensor out = floats(10, -1);
  group_->set_guards({.timeout_seconds = 0.5});
  group_->start_receive(stream, out, world().size() - 1).wait();
  std::vector<float> host(10);
  EXPECT_THAT(error_of([&] { copy(stream, Tensor(host.data(), DType::f32, {10}), out); }),
              HasSubstr("receive of float32[10] from rank"));
}

TEST_F(LostRank, EndsTheStart) {
  Stream stream = Stream::on(device_);
  group_->set_guards({.timeout_seconds = 0.5});
  if (!is_last()) {
    EXPECT_THAT(error_of([&] { group_->prepare(stream, Messages::none); }), HasSubstr("0.5 s"));
  } else {
    // Takes the others' id, as a rank that is lost right after.
    Stream host = Stream::cpu(1);
    std::vector<std::uint8_t> id(128);
    group_->broadcast(host, Tensor(id.data(), DType::u8, {128}), 0);
    sleep_s(1);
  }
}

TEST_F(NcclGroup, TimeThatTheStreamItselfNeedsIsNotTimeWaitedForOthers) {
  Stream stream = Stream::on(device_);
  group_->prepare(stream, Messages::none);
  const Tensor x = floats(10, 1);
  world().barrier();
  group_->set_guards({.timeout_seconds = 0.5});
  // The stream has work of its own for longer than that, in pieces: the host looks in between.
  const auto nap = [](void*) { sleep_s(0.001); };
  for (int i = 0; i < 2000; ++i)
    ASSERT_EQ(cudaLaunchHostFunc(cuda::native(stream), nap, nullptr), cudaSuccess);
  group_->all_reduce(stream, x);
  EXPECT_EQ(error_of([&] { stream.synchronize(); }), "no error");
  world().barrier();
}

}  // namespace
}  // namespace jamba

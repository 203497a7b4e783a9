#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/core/trace.h"
#include "parallel/comm/mpi_communicator.h"
#include "tests/parallel/collective_cases.h"
#include "tests/support/mpi_main.h"

namespace jamba {
namespace {

using ::testing::HasSubstr;

Communicator& world() { return test::mpi_session().world(); }

TEST(MpiCommunicator, ReducesInPlaceOnAllRanks) { test::check_all_reduce(world()); }
TEST(MpiCommunicator, ReducesInTheBackground) { test::check_start_all_reduce(world()); }
TEST(MpiCommunicator, GathersInRankOrder) { test::check_all_gather(world()); }
TEST(MpiCommunicator, BroadcastsFromEachRoot) { test::check_broadcast(world()); }
TEST(MpiCommunicator, RepeatsItsBits) { test::check_same_bits(world()); }
TEST(MpiCommunicator, AgreesOnTheLowestFailingRank) { test::check_agree(world()); }
TEST(MpiCommunicator, TracesOperationsAndWaits) { test::check_trace(world()); }
TEST(MpiCommunicator, CountsItsTime) { test::check_profile(world()); }
TEST(MpiCommunicator, SumsInTheOneOrder) { test::check_sums(world()); }
TEST(MpiCommunicator, AddsPairwise) { test::check_sum_order(world()); }
TEST(MpiCommunicator, SendsRowsToEachRank) { test::check_all_to_all(world()); }
TEST(MpiCommunicator, GathersInTheBackground) { test::check_gather_in_the_background(world()); }
TEST(MpiCommunicator, SendsMessagesInOrder) { test::check_messages(world()); }
TEST(MpiCommunicator, SplitsByTwoAxes) { test::check_splits(world()); }
TEST(MpiCommunicator, CountsBytesSent) { test::check_bytes_sent(world()); }
TEST(MpiCommunicator, RefusesArgumentsThatNoGroupCanTake) {
  test::check_refused_arguments(world());
}

TEST(MpiCommunicator, SendsInPiecesWhatOneCallCannotCount) {
  MpiCommunicator small_counts(1001);
  test::check_all_reduce(small_counts);
  test::check_start_all_reduce(small_counts);
  test::check_all_gather(small_counts);
  test::check_broadcast(small_counts);
  test::check_all_to_all(small_counts);
  test::check_messages(small_counts);
  EXPECT_TRUE(small_counts.idle());
}

TEST(MpiCommunicator, IsNotIdleWhileACollectiveIsInFlight) {
  MpiCommunicator group;
  Stream stream = Stream::cpu(1);
  float x = 1;
  const Tensor view(&x, DType::f32, {1});
  auto pending = group.start_all_reduce(stream, view, ReduceOp::sum);
  EXPECT_EQ(group.idle(), group.size() == 1);
  pending.wait();
  EXPECT_TRUE(group.idle());
  if (group.size() == 1) return;

  pending = group.start_all_reduce(stream, view, ReduceOp::sum);
  pending = {};
  EXPECT_FALSE(group.idle()) << "a collective was abandoned";
  world().barrier();
}

/// What this rank's body throws in a group of its own that compares calls.
std::string mismatch(const std::function<void(Communicator&, Stream&)>& body) {
  MpiCommunicator group;
  Stream stream = Stream::cpu(1);
  group.set_guards({.compare_calls = true});
  try {
    test::check_all_reduce(group);
    body(group, stream);
  } catch (const CommError& error) {
    return error.what();
  }
  return "no error";
}

class Mismatch : public ::testing::Test {
 protected:
  void SetUp() override {
    if (world().size() == 1) GTEST_SKIP() << "a group of one agrees";
  }
  int last_ = world().size() - 1;
  bool is_last_ = world().rank() == last_;
  std::vector<float> data_ = std::vector<float>(100);
  Tensor x_{data_.data(), DType::f32, {50}};
};

TEST_F(Mismatch, OfKindsIsSeenByAll) {
  const std::string message = mismatch([&](Communicator& group, Stream& stream) {
    is_last_ ? group.broadcast(stream, x_, 0) : group.all_reduce(stream, x_);
  });
  EXPECT_EQ(message,
            fmt::format("world: ranks disagree on a collective: rank 0 calls all_reduce sum "
                        "of float32[50], rank {} calls broadcast of float32[50] from rank 0",
                        last_));
}

TEST_F(Mismatch, OfCountsDtypesAndReductionsIsSeenByAll) {
  const Tensor shorter = x_.slice(0, 49);
  const Tensor whole(data_.data(), DType::i64, {50});
  EXPECT_THAT(mismatch([&](Communicator& group, Stream& stream) {
                group.all_reduce(stream, is_last_ ? shorter : x_);
              }),
              HasSubstr(fmt::format("rank {} calls all_reduce sum of float32[49]", last_)));
  EXPECT_THAT(mismatch([&](Communicator& group, Stream& stream) {
                group.all_reduce(stream, is_last_ ? whole : x_);
              }),
              HasSubstr("int64[50]"));
  EXPECT_THAT(mismatch([&](Communicator& group, Stream& stream) {
                group.all_reduce(stream, x_, is_last_ ? ReduceOp::max : ReduceOp::sum);
              }),
              HasSubstr("all_reduce max"));
}

TEST_F(Mismatch, OfRowsIsSeenByAll) {
  const std::int64_t size = world().size();
  const std::vector<std::int64_t> x_rows(static_cast<std::size_t>(size), 1);
  std::vector<std::int64_t> out_rows = x_rows;
  if (is_last_) out_rows[0] = 2;
  std::vector<float> out(100);
  EXPECT_THAT(mismatch([&](Communicator& group, Stream& stream) {
                group.all_to_all(stream, Tensor(out.data(), DType::f32, {size + is_last_, 3}),
                                 Tensor(data_.data(), DType::f32, {size, 3}), out_rows, x_rows);
              }),
              HasSubstr(fmt::format("with 1 rows for rank {}", last_)));
}

TEST_F(Mismatch, OfAMessageIsSeenByItsReceiver) {
  const std::string message = mismatch([&](Communicator& group, Stream& stream) {
    if (group.rank() == 0) group.start_send(stream, x_, last_).wait();
    if (is_last_) group.start_receive(stream, x_.slice(0, 7), 0).wait();
  });
  if (is_last_) {
    EXPECT_THAT(message, HasSubstr(fmt::format("rank 0 calls send of float32[50] to rank {0}, "
                                               "rank {0} calls receive of float32[7] from rank 0",
                                               last_)));
  } else {
    EXPECT_EQ(message, "no error");
  }
}

TEST(MpiCommunicator, ComparesWhatAgrees) {
  MpiCommunicator group;
  group.set_guards({.compare_calls = true, .timeout_seconds = 60});
  test::check_start_all_reduce(group);
  test::check_all_to_all(group);
  test::check_messages(group);
  test::check_splits(group);
  EXPECT_TRUE(group.idle());
}

TEST(MpiCommunicator, TracesWhenAnOperationWasDoneNotWhenItWasWaitedFor) {
  if (world().size() == 1) GTEST_SKIP() << "a group of one has no operations";
  Stream stream = Stream::cpu(1);
  Trace trace(10);
  stream.profile().trace = &trace;
  float x = 1;
  PendingCollective pending = world().start_all_reduce(stream, Tensor(&x, DType::f32, {1}));
  // Each barrier moves it, and it needs two moves.
  for (int i = 0; i < 10; ++i) world().barrier();
  const std::int64_t waits_at = Trace::now_ns();
  pending.wait();
  ASSERT_EQ(trace.events().back().lane, 1);
  EXPECT_LE(trace.events().back().end_ns, waits_at);
}

TEST(MpiSession, NumbersTheRanksOfThisHost) {
  EXPECT_EQ(test::mpi_session().local_size(), world().size());
  EXPECT_EQ(test::mpi_session().local_rank(), world().rank());
}

}  // namespace
}  // namespace jamba

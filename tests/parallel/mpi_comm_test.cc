#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "parallel/comm/mpi_communicator.h"
#include "tests/parallel/collective_cases.h"
#include "tests/support/mpi_main.h"

namespace jamba {
namespace {

Communicator& world() { return test::mpi_session().world(); }

TEST(MpiCommunicator, ReducesInPlaceOnAllRanks) { test::check_all_reduce(world()); }
TEST(MpiCommunicator, ReducesInTheBackground) { test::check_start_all_reduce(world()); }
TEST(MpiCommunicator, GathersInRankOrder) { test::check_all_gather(world()); }
TEST(MpiCommunicator, BroadcastsFromEachRoot) { test::check_broadcast(world()); }
TEST(MpiCommunicator, RepeatsItsBits) { test::check_same_bits(world()); }
TEST(MpiCommunicator, AgreesOnTheLowestFailingRank) { test::check_agree(world()); }
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

TEST(MpiSession, NumbersTheRanksOfThisHost) {
  EXPECT_EQ(test::mpi_session().local_size(), world().size());
  EXPECT_EQ(test::mpi_session().local_rank(), world().rank());
}

}  // namespace
}  // namespace jamba

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
TEST(MpiCommunicator, RefusesArgumentsThatNoGroupCanTake) {
  test::check_refused_arguments(world());
}

TEST(MpiCommunicator, SendsInPiecesWhatOneCallCannotCount) {
  MpiCommunicator small_counts(1001);
  test::check_all_reduce(small_counts);
  test::check_start_all_reduce(small_counts);
  test::check_all_gather(small_counts);
  test::check_broadcast(small_counts);
  EXPECT_TRUE(small_counts.idle());
}

TEST(MpiCommunicator, IsNotIdleWhileACollectiveIsInFlight) {
  MpiCommunicator group;
  Stream stream = Stream::cpu(1);
  float x = 1;
  const Tensor view(&x, DType::f32, {1});
  auto pending = group.start_all_reduce(stream, view, ReduceOp::sum);
  EXPECT_FALSE(group.idle());
  pending->wait();
  pending.reset();
  EXPECT_TRUE(group.idle());

  pending = group.start_all_reduce(stream, view, ReduceOp::sum);
  pending.reset();
  EXPECT_FALSE(group.idle()) << "a collective was abandoned";
  world().barrier();
}

TEST(MpiSession, NumbersTheRanksOfThisHost) {
  EXPECT_EQ(test::mpi_session().local_size(), world().size());
  EXPECT_EQ(test::mpi_session().local_rank(), world().rank());
}

}  // namespace
}  // namespace jamba

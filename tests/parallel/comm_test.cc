#include "parallel/comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <thread>

#include "parallel/comm/thread_group.h"
#include "tests/parallel/collective_cases.h"

namespace jamba {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsNan;

class ThreadGroup : public ::testing::TestWithParam<int> {};

TEST_P(ThreadGroup, ReducesInPlaceOnAllRanks) { run_ranks(GetParam(), test::check_all_reduce); }
TEST_P(ThreadGroup, ReducesInTheBackground) { run_ranks(GetParam(), test::check_start_all_reduce); }
TEST_P(ThreadGroup, GathersInRankOrder) { run_ranks(GetParam(), test::check_all_gather); }
TEST_P(ThreadGroup, BroadcastsFromEachRoot) { run_ranks(GetParam(), test::check_broadcast); }
TEST_P(ThreadGroup, RepeatsItsBits) { run_ranks(GetParam(), test::check_same_bits); }
TEST_P(ThreadGroup, AgreesOnTheLowestFailingRank) { run_ranks(GetParam(), test::check_agree); }
TEST_P(ThreadGroup, TracesOperationsAndWaits) { run_ranks(GetParam(), test::check_trace); }
TEST_P(ThreadGroup, CountsItsTime) { run_ranks(GetParam(), test::check_profile); }
TEST_P(ThreadGroup, SumsInTheOneOrder) { run_ranks(GetParam(), test::check_sums); }
TEST_P(ThreadGroup, AddsPairwise) { run_ranks(GetParam(), test::check_sum_order); }
TEST_P(ThreadGroup, SendsRowsToEachRank) { run_ranks(GetParam(), test::check_all_to_all); }
TEST_P(ThreadGroup, GathersInTheBackground) {
  run_ranks(GetParam(), test::check_gather_in_the_background);
}
TEST_P(ThreadGroup, SendsMessagesInOrder) { run_ranks(GetParam(), test::check_messages); }
TEST_P(ThreadGroup, SplitsByTwoAxes) { run_ranks(GetParam(), test::check_splits); }
TEST_P(ThreadGroup, CountsBytesSent) { run_ranks(GetParam(), test::check_bytes_sent); }

TEST_P(ThreadGroup, BarrierHoldsUntilAllHaveCome) {
  std::atomic<int> arrived = 0;
  run_ranks(GetParam(), [&](Communicator& group) {
    for (int round = 1; round <= 3; ++round) {
      std::this_thread::sleep_for(std::chrono::milliseconds(group.rank()));
      ++arrived;
      group.barrier();
      EXPECT_GE(arrived, round * group.size());
      group.barrier();
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadGroup, ::testing::Values(1, 2, 3, 4, 7),
                         ::testing::PrintToStringParamName());

TEST(SingleRank, IsAGroupOfOne) {
  const auto group = make_single_rank();
  EXPECT_EQ(group->rank(), 0);
  EXPECT_EQ(group->size(), 1);
  test::check_all_reduce(*group);
  test::check_start_all_reduce(*group);
  test::check_all_gather(*group);
  test::check_broadcast(*group);
  test::check_agree(*group);
  group->barrier();
}

/// The message of the error that run_ranks throws.
template <class Expected>
std::string error_of(int size, const std::function<void(Communicator&)>& body,
                     const CommGuards& guards = {}) {
  try {
    run_ranks(size, body, guards);
  } catch (const Expected& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another exception: ") + error.what();
  }
  return "no error";
}

void sum_one(Communicator& group) {
  Stream stream = Stream::cpu(1);
  float x = 1;
  group.all_reduce(stream, Tensor(&x, DType::f32, {1}), ReduceOp::sum);
}

TEST(RunRanks, WakesTheOthersWhenOneThrows) {
  std::atomic<int> woken = 0;
  const std::string message = error_of<DataError>(4, [&](Communicator& group) {
    sum_one(group);
    if (group.rank() == 2) throw DataError("token 99 is beyond the vocabulary");
    try {
      sum_one(group);
    } catch (const CommError& error) {
      EXPECT_THAT(error.what(), HasSubstr("all_reduce sum of float32[1]"));
      EXPECT_THAT(error.what(), HasSubstr("rank 2 failed: token 99"));
      ++woken;
      throw;
    }
  });
  EXPECT_EQ(message, "token 99 is beyond the vocabulary");
  EXPECT_EQ(woken, 3);
}

TEST(RunRanks, StaysBrokenAfterAnError) {
  std::array<std::array<float, 3>, 3> x{};
  const std::string message = error_of<DataError>(3, [&](Communicator& group) {
    Stream stream = Stream::cpu(1);
    auto& mine = x[static_cast<std::size_t>(group.rank())];
    const Tensor view(mine.data(), DType::f32, {3});
    group.all_reduce(stream, view, ReduceOp::sum);
    if (group.rank() == 0) throw DataError("first");
    // A retry must not be taken for the missing rank.
    for (int attempt = 0; attempt < 3; ++attempt) {
      mine.fill(1);
      EXPECT_THROW(group.all_reduce(stream, view, ReduceOp::sum), CommError);
    }
  });
  EXPECT_EQ(message, "first");
  for (const int rank : {1, 2}) EXPECT_THAT(x[static_cast<std::size_t>(rank)], Each(IsNan()));
}

TEST(RunRanks, WakesTheOthersWhenOneLeaves) {
  const std::string message = error_of<CommError>(3, [](Communicator& group) {
    if (group.rank() != 1) group.barrier();
  });
  EXPECT_EQ(message, "barrier: rank 1 has left the group");
}

TEST(RunRanks, PassesOnExceptionsOfAnyType) {
  EXPECT_THROW(run_ranks(2,
                         [](Communicator& group) {
                           if (group.rank() == 1) throw 5;
                           group.barrier();
                         }),
               int);
}

TEST(RunRanks, NamesBothSidesOfAMismatch) {
  const std::string counts = error_of<CommError>(3, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    std::vector<float> x(5);
    const Tensor view(x.data(), DType::f32, {group.rank() == 2 ? 4 : 5});
    group.all_reduce(stream, view, ReduceOp::sum);
  });
  EXPECT_THAT(counts, HasSubstr("rank 0 calls all_reduce sum of float32[5]"));
  EXPECT_THAT(counts, HasSubstr("rank 2 calls all_reduce sum of float32[4]"));

  const std::string order = error_of<CommError>(2, [](Communicator& group) {
    if (group.rank() == 0) group.barrier();
    sum_one(group);
  });
  EXPECT_THAT(order, HasSubstr("rank 0 calls barrier, rank 1 calls all_reduce sum"));

  const std::string roots = error_of<CommError>(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    float x = 1;
    group.broadcast(stream, Tensor(&x, DType::f32, {1}), group.rank());
  });
  EXPECT_THAT(roots, HasSubstr("from rank 1"));

  const std::string dtypes = error_of<CommError>(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    std::int64_t x = 1;
    const DType dtype = group.rank() == 0 ? DType::i64 : DType::f32;
    group.broadcast(stream, Tensor(&x, dtype, {1}), 0);
  });
  EXPECT_THAT(dtypes, HasSubstr("rank 1 calls broadcast of float32[1]"));
}

TEST(RunRanks, NamesRanksThatExpectOtherRows) {
  const std::string message = error_of<CommError>(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    std::vector<float> x(12);
    std::vector<float> out(12);
    const std::int64_t rows[2] = {1, 1};
    const std::int64_t wrong[2] = {2, 1};
    const bool errs = group.rank() == 1;
    group.all_to_all(stream, Tensor(out.data(), DType::f32, {errs ? 3 : 2, 4}),
                     Tensor(x.data(), DType::f32, {2, 4}), errs ? wrong : rows, rows);
  });
  EXPECT_THAT(message,
              HasSubstr("rank 0 calls all_to_all of float32[2, 4] with 1 rows for rank 1"));
  EXPECT_THAT(message, HasSubstr("expects 2 of them"));
}

TEST(RunRanks, NamesBothSidesOfAMessage) {
  const std::string message = error_of<CommError>(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    std::vector<float> x(5);
    const Tensor view(x.data(), DType::f32, {5});
    if (group.rank() == 0) group.start_send(stream, view, 1).wait();
    if (group.rank() == 1) group.start_receive(stream, view.slice(0, 4), 0).wait();
  });
  EXPECT_THAT(message, HasSubstr("rank 0 calls send of float32[5] to rank 1, rank 1 calls receive "
                                 "of float32[4] from rank 0"));
}

TEST(RunRanks, WakesThoseWhoWaitInOtherGroups) {
  std::atomic<int> woken = 0;
  const std::string message = error_of<DataError>(4, [&](Communicator& group) {
    const auto pair = group.split("tp", group.rank() / 2);
    if (group.rank() == 3) throw DataError("gone");
    try {
      Stream stream = Stream::cpu(1);
      float x = 1;
      const Tensor view(&x, DType::f32, {1});
      if (group.rank() < 2) pair->start_receive(stream, view, 1 - pair->rank()).wait();
      if (group.rank() == 2) pair->barrier();
    } catch (const CommError&) {
      ++woken;
      throw;
    }
  });
  EXPECT_EQ(message, "gone");
  EXPECT_EQ(woken, 3);
}

TEST(RunRanks, EndsAWaitThatLastsTooLong) {
  const std::string message =
      error_of<CommError>(3,
                          [](Communicator& group) {
                            const auto all = group.split("dp", 0);
                            sum_one(*all);
                            if (group.rank() != 1) sum_one(*all);
                            std::this_thread::sleep_for(std::chrono::milliseconds(500));
                          },
                          {.timeout_seconds = 0.2});
  EXPECT_EQ(message,
            "all_reduce sum of float32[1] over dp (number 2): waited 0.2 s; not there: rank 1");
}

TEST(RunRanks, PoisonsAReductionInFlight) {
  run_ranks(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    float x = 1;
    const Tensor view(&x, DType::f32, {1});
    auto pending = group.start_all_reduce(stream, view, ReduceOp::sum);
    EXPECT_TRUE(std::isnan(x));
    x = 100;  // too late to count
    pending.wait();
    EXPECT_EQ(x, 2);
  });
}

TEST(RunRanks, PoisonsEveryOutputInFlight) {
  run_ranks(2, [](Communicator& group) {
    Stream stream = Stream::cpu(1);
    const int other = 1 - group.rank();
    std::vector<float> x(4, 1);
    const Tensor view(x.data(), DType::f32, {4});
    const std::int64_t rows[2] = {2, 2};
    std::array<float, 8> out{};
    const auto expect_poisoned = [&](std::int64_t n, const auto& start) {
      out.fill(0);
      PendingCollective pending = start(Tensor(out.data(), DType::f32, {n}));
      for (std::int64_t i = 0; i < n; ++i)
        EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(i)]));
      group.barrier();
      pending.wait();
      for (std::int64_t i = 0; i < n; ++i)
        EXPECT_FALSE(std::isnan(out[static_cast<std::size_t>(i)]));
    };
    expect_poisoned(2, [&](Tensor to) { return group.start_reduce_scatter(stream, to, view); });
    expect_poisoned(8, [&](Tensor to) { return group.start_all_gather(stream, to, view); });
    expect_poisoned(
        4, [&](Tensor to) { return group.start_all_to_all(stream, to, view, rows, rows); });
    group.start_send(stream, view, other).wait();
    expect_poisoned(4, [&](Tensor to) { return group.start_receive(stream, to, other); });
  });
}

TEST(Collectives, RefuseArgumentsThatNoGroupCanTake) {
  const auto group = make_single_rank();
  test::check_refused_arguments(*group);
  EXPECT_THROW(run_ranks(0, [](Communicator&) {}), LogicError);
}

}  // namespace
}  // namespace jamba

#include "parallel/data_parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "parallel/comm/thread_group.h"
#include "tests/parallel/collective_cases.h"

namespace jamba {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Range {
  std::int64_t begin;
  std::int64_t end;
  friend bool operator==(const Range&, const Range&) = default;
};

/// Records what is started, and as which of several ranks it is called.
class RecordingCommunicator final : public Communicator {
 public:
  RecordingCommunicator(int size, const float* base) : Communicator("dp", 0, size), base_(base) {}

  void progress() override { ++num_progress; }
  void forget() {
    started.clear();
    num_waits = num_progress = 0;
  }

  std::vector<Range> started;
  int num_waits = 0;
  int num_progress = 0;

 protected:
  std::unique_ptr<RunningOperation> start(Stream&, const Operation& op) override {
    EXPECT_EQ(op.kind, OperationKind::all_reduce);
    EXPECT_EQ(op.reduce, ReduceOp::sum);
    const std::int64_t begin = op.x.ptr<float>() - base_;
    started.push_back({begin, begin + op.x.numel()});
    return std::make_unique<Running>(num_waits);
  }
  std::unique_ptr<Communicator> do_split(const std::string&, int) override { return nullptr; }

 private:
  struct Running final : RunningOperation {
    explicit Running(int& count) : waits(count) {}
    void finish() override {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ++waits;
    }
    int& waits;
  };

  const float* base_;
};

TEST(GradientReducer, StartsEachBucketOnceBackwardIsPastIt) {
  std::vector<float> gradients(23);
  RecordingCommunicator group(2, gradients.data());
  Stream stream = Stream::cpu(1);
  GradientReducer reducer(group, stream, Tensor(gradients.data(), DType::f32, {23}), 10);

  for (int step = 0; step < 2; ++step) {
    SCOPED_TRACE(step);
    group.forget();
    reducer.ready_from(14);
    EXPECT_THAT(group.started, IsEmpty());
    EXPECT_EQ(group.num_progress, 1);
    reducer.ready_from(13);
    EXPECT_THAT(group.started, ElementsAre(Range{13, 23}));
    reducer.ready_from(13);
    reducer.ready_from(4);
    EXPECT_THAT(group.started, ElementsAre(Range{13, 23}));
    reducer.ready_from(2);
    EXPECT_THAT(group.started, ElementsAre(Range{13, 23}, Range{3, 13}));
    EXPECT_EQ(group.num_progress, 5);
    EXPECT_EQ(group.num_waits, 0);
    reducer.finish();
    EXPECT_THAT(group.started, ElementsAre(Range{13, 23}, Range{3, 13}, Range{0, 3}));
    EXPECT_EQ(group.num_waits, 3);
  }
}

TEST(GradientReducer, StartsAllThatOneLayerMakesReady) {
  std::vector<float> gradients(20);
  RecordingCommunicator group(2, gradients.data());
  Stream stream = Stream::cpu(1);
  GradientReducer reducer(group, stream, Tensor(gradients.data(), DType::f32, {20}), 10);
  reducer.ready_from(0);
  EXPECT_THAT(group.started, ElementsAre(Range{10, 20}, Range{0, 10}));
  reducer.finish();
  EXPECT_EQ(group.num_waits, 2);
}

TEST(GradientReducer, CountsTheTimeThatOverlapDidNotHide) {
  std::vector<float> gradients(4);
  RecordingCommunicator group(2, gradients.data());
  Stream stream = Stream::cpu(1);
  GradientReducer reducer(group, stream, Tensor(gradients.data(), DType::f32, {4}), 2);
  reducer.finish();
  EXPECT_GE(stream.profile()[Part::communication], 0.004);
}

TEST(GradientReducer, DoesNothingInAGroupOfOne) {
  std::vector<float> gradients{1, 2, 3};
  RecordingCommunicator group(1, gradients.data());
  Stream stream = Stream::cpu(1);
  GradientReducer reducer(group, stream, Tensor(gradients.data(), DType::f32, {3}), 2);
  for (int step = 0; step < 2; ++step) {
    reducer.ready_from(1);
    reducer.finish();
  }
  EXPECT_THAT(group.started, IsEmpty());
  EXPECT_EQ(group.num_progress, 0);
  EXPECT_THAT(gradients, ElementsAre(1, 2, 3));
}

TEST(GradientReducer, RefusesWhatBackwardCannotMean) {
  std::vector<float> gradients(8);
  RecordingCommunicator group(2, gradients.data());
  Stream stream = Stream::cpu(1);
  const Tensor flat(gradients.data(), DType::f32, {8});
  GradientReducer reducer(group, stream, flat, 4);
  EXPECT_THROW(reducer.ready_from(9), LogicError);
  EXPECT_THROW(reducer.ready_from(-1), LogicError);
  reducer.ready_from(5);
  EXPECT_THROW(reducer.ready_from(6), LogicError);
  reducer.finish();
  reducer.ready_from(8);
  EXPECT_THROW(GradientReducer(group, stream, flat, 0), LogicError);
  EXPECT_THROW(GradientReducer(group, stream, flat.view({2, 4}), 4), LogicError);
}

/// Backward writes gradients from the end in uneven layers, several steps in one reducer.
void check_sums(Communicator& group, std::int64_t n, std::int64_t bucket, std::int64_t layer) {
  Stream stream = Stream::cpu(1);
  std::vector<float> gradients(static_cast<std::size_t>(n));
  GradientReducer reducer(group, stream, Tensor(gradients.data(), DType::f32, {n}), bucket);
  for (int step = 0; step < 3; ++step) {
    SCOPED_TRACE(fmt::format("n {} bucket {} layer {} step {}", n, bucket, layer, step));
    for (std::int64_t end = n; end > 0; end -= layer) {
      const std::int64_t begin = std::max<std::int64_t>(0, end - layer);
      for (std::int64_t i = begin; i < end; ++i) {
        gradients[static_cast<std::size_t>(i)] = test::rank_value(group.rank(), i + step);
      }
      reducer.ready_from(begin);
    }
    reducer.finish();
    std::int64_t num_wrong = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const float sum = test::tree_sum(0, group.size(),
                                       [&](int rank) { return test::rank_value(rank, i + step); });
      if (!(gradients[static_cast<std::size_t>(i)] == sum)) ++num_wrong;
    }
    EXPECT_EQ(num_wrong, 0);
  }
}

TEST(GradientReducer, GivesEveryRankThePlainSum) {
  for (const int size : {1, 2, 3, 4}) {
    run_ranks(size, [](Communicator& group) {
      for (const std::int64_t n : {0, 1, 96, 97}) {
        for (const std::int64_t bucket : {1, 16, 33, 1000}) {
          for (const std::int64_t layer : {1, 16, 40}) check_sums(group, n, bucket, layer);
        }
      }
    });
  }
}

}  // namespace
}  // namespace jamba

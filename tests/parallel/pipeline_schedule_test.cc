#include "parallel/pipeline_schedule.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

using ::testing::ElementsAre;
using Kind = PipelineAction::Kind;

std::vector<PipelineShape> all_shapes() {
  std::vector<PipelineShape> shapes;
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (int microbatches = 1; microbatches <= 16; ++microbatches) {
      shapes.push_back({PipelineSchedule::one_f_one_b, ranks, 1, microbatches});
      if (ranks == 1 || microbatches % ranks != 0) continue;
      for (int chunks = 2; chunks <= 4; ++chunks) {
        shapes.push_back({PipelineSchedule::interleaved, ranks, chunks, microbatches});
      }
    }
  }
  return shapes;
}

std::string describe(const PipelineShape& s) {
  return fmt::format("{} ranks, {} chunks, {} microbatches", s.num_ranks, s.num_chunks,
                     s.num_microbatches);
}

std::vector<std::vector<PipelineAction>> actions_of_all(const PipelineShape& shape) {
  std::vector<std::vector<PipelineAction>> actions;
  for (int r = 0; r < shape.num_ranks; ++r) actions.push_back(pipeline_actions(shape, r));
  return actions;
}

/// "ra0.2 F0.2 sa0.2": kind, chunk, microbatch.
std::string text_of(const std::vector<PipelineAction>& actions) {
  static const char* const kNames[] = {"ra", "F", "sa", "rg", "B", "sg"};
  std::string text;
  for (const PipelineAction& a : actions) {
    text += fmt::format("{}{}{}.{}", text.empty() ? "" : " ", kNames[static_cast<int>(a.kind)],
                        a.chunk, a.microbatch);
  }
  return text;
}

/// The order of computations alone.
std::string computations_of(std::vector<PipelineAction> actions) {
  std::erase_if(actions, [](const PipelineAction& a) {
    return a.kind != Kind::forward && a.kind != Kind::backward;
  });
  return text_of(actions);
}

/// What travels: of which stage's output or input gradient, and when it was sent.
struct Message {
  bool is_gradient;
  int from_stage;
  int microbatch;
  int time;
};

/// Runs all ranks with receives that block and sends that do not; a forward takes one unit of time,
/// a backward two, a message none.
class Simulation {
 public:
  explicit Simulation(const PipelineShape& shape)
      : shape_(shape),
        actions_(actions_of_all(shape)),
        next_(shape.num_ranks, 0),
        clock_(shape.num_ranks, 0) {}

  /// Fails the test on a deadlock, on a message that comes out of order, and on one that nobody
  /// receives. Returns the time at which the last rank ends.
  int run() {
    bool progress = true;
    while (progress) {
      progress = false;
      for (int rank = 0; rank < shape_.num_ranks; ++rank) {
        while (next_[rank] < actions_[rank].size() && step(rank, actions_[rank][next_[rank]])) {
          ++next_[rank];
          progress = true;
        }
      }
    }
    for (int rank = 0; rank < shape_.num_ranks; ++rank) {
      EXPECT_EQ(next_[rank], actions_[rank].size()) << "rank " << rank << " is stuck";
    }
    for (const auto& [pair, messages] : in_transit_) EXPECT_TRUE(messages.empty());
    return *std::max_element(clock_.begin(), clock_.end());
  }

 private:
  /// Whether the action could be done.
  bool step(int rank, const PipelineAction& action) {
    const int stage = action.chunk * shape_.num_ranks + rank;
    const auto peer = [&] { return peer_of(action.kind, shape_.num_ranks, rank); };
    switch (action.kind) {
      case Kind::forward:
        clock_[rank] += 1;
        return true;
      case Kind::backward:
        clock_[rank] += 2;
        return true;
      case Kind::send_activation:
      case Kind::send_gradient:
        in_transit_[{rank, peer()}].push_back(
            {action.kind == Kind::send_gradient, stage, action.microbatch, clock_[rank]});
        return true;
      case Kind::receive_activation:
      case Kind::receive_gradient:
        break;
    }
    std::deque<Message>& messages = in_transit_[{peer(), rank}];
    if (messages.empty()) return false;
    const Message message = messages.front();
    messages.pop_front();
    const bool wants_gradient = action.kind == Kind::receive_gradient;
    EXPECT_EQ(message.is_gradient, wants_gradient);
    EXPECT_EQ(message.from_stage, wants_gradient ? stage + 1 : stage - 1);
    EXPECT_EQ(message.microbatch, action.microbatch);
    clock_[rank] = std::max(clock_[rank], message.time);
    return true;
  }

  const PipelineShape& shape_;
  std::vector<std::vector<PipelineAction>> actions_;
  std::vector<std::size_t> next_;
  std::vector<int> clock_;
  std::map<std::pair<int, int>, std::deque<Message>> in_transit_;
};

TEST(PipelineActions, OneForwardOneBackwardWrittenOut) {
  const PipelineShape shape{.num_ranks = 3, .num_microbatches = 4};
  EXPECT_EQ(computations_of(pipeline_actions(shape, 0)), "F0.0 F0.1 F0.2 B0.0 F0.3 B0.1 B0.2 B0.3");
  EXPECT_EQ(computations_of(pipeline_actions(shape, 1)), "F0.0 F0.1 B0.0 F0.2 B0.1 F0.3 B0.2 B0.3");
  EXPECT_EQ(computations_of(pipeline_actions(shape, 2)), "F0.0 B0.0 F0.1 B0.1 F0.2 B0.2 F0.3 B0.3");
  const PipelineShape alone{.num_microbatches = 2};
  EXPECT_EQ(text_of(pipeline_actions(alone, 0)), "F0.0 B0.0 F0.1 B0.1");
  const PipelineShape few{.num_ranks = 3, .num_microbatches = 1};
  EXPECT_EQ(text_of(pipeline_actions(few, 0)), "F0.0 sa0.0 rg0.0 B0.0");
  EXPECT_EQ(text_of(pipeline_actions(few, 1)), "ra0.0 F0.0 sa0.0 rg0.0 B0.0 sg0.0");
  EXPECT_EQ(text_of(pipeline_actions(few, 2)), "ra0.0 F0.0 B0.0 sg0.0");
}

TEST(PipelineActions, InterleavedWrittenOut) {
  // Figure 4 of arXiv:2104.04473: four devices, two chunks, eight microbatches.
  const PipelineShape shape{PipelineSchedule::interleaved, 4, 2, 8};
  EXPECT_EQ(computations_of(pipeline_actions(shape, 0)),
            "F0.0 F0.1 F0.2 F0.3 F1.0 F1.1 F1.2 F1.3 F0.4 F0.5 F0.6 B1.0 F0.7 B1.1 F1.4 B1.2 "
            "F1.5 B1.3 F1.6 B0.0 F1.7 B0.1 B0.2 B0.3 B1.4 B1.5 B1.6 B1.7 B0.4 B0.5 B0.6 B0.7");
  EXPECT_EQ(computations_of(pipeline_actions(shape, 3)),
            "F0.0 F0.1 F0.2 F0.3 F1.0 B1.0 F1.1 B1.1 F1.2 B1.2 F1.3 B1.3 F0.4 B0.0 F0.5 B0.1 "
            "F0.6 B0.2 F0.7 B0.3 F1.4 B1.4 F1.5 B1.5 F1.6 B1.6 F1.7 B1.7 B0.4 B0.5 B0.6 B0.7");
}

TEST(PipelineActions, EachChunkRunsEachMicrobatchForwardThenBackwardInOrder) {
  for (const PipelineShape& shape : all_shapes()) {
    SCOPED_TRACE(describe(shape));
    for (const std::vector<PipelineAction>& actions : actions_of_all(shape)) {
      std::vector<int> forwards(shape.num_chunks, 0);
      std::vector<int> backwards(shape.num_chunks, 0);
      for (const PipelineAction& a : actions) {
        if (a.kind != Kind::forward && a.kind != Kind::backward) continue;
        std::vector<int>& done = a.kind == Kind::forward ? forwards : backwards;
        EXPECT_EQ(a.microbatch, done[a.chunk]++);
        EXPECT_LE(backwards[a.chunk], forwards[a.chunk]);
      }
      EXPECT_EQ(forwards, std::vector<int>(shape.num_chunks, shape.num_microbatches));
      EXPECT_EQ(backwards, forwards);
    }
  }
}

/// What a computation needs was received right before it, and what it made is sent right after; the
/// ends of the model neither receive nor send.
TEST(PipelineActions, MessagesStandNextToTheirComputation) {
  for (const PipelineShape& shape : all_shapes()) {
    SCOPED_TRACE(describe(shape));
    for (int rank = 0; rank < shape.num_ranks; ++rank) {
      std::vector<PipelineAction> expected;
      const std::vector<PipelineAction> actions = pipeline_actions(shape, rank);
      for (const PipelineAction& a : actions) {
        const int stage = a.chunk * shape.num_ranks + rank;
        const bool first = stage == 0;
        const bool last = stage == shape.num_chunks * shape.num_ranks - 1;
        const auto add = [&](Kind kind) { expected.push_back({kind, a.chunk, a.microbatch}); };
        if (a.kind == Kind::forward) {
          if (!first) add(Kind::receive_activation);
          add(Kind::forward);
          if (!last) add(Kind::send_activation);
        } else if (a.kind == Kind::backward) {
          if (!last) add(Kind::receive_gradient);
          add(Kind::backward);
          if (!first) add(Kind::send_gradient);
        }
      }
      EXPECT_EQ(text_of(actions), text_of(expected));
    }
  }
}

/// Also with chunks and microbatches beyond the other tests' for two ranks, whose messages of both
/// kinds share a stream.
TEST(PipelineActions, FinishWithMessagesInOrder) {
  std::vector<PipelineShape> shapes = all_shapes();
  for (int chunks = 2; chunks <= 9; ++chunks) {
    for (int microbatches = 2; microbatches <= 40; microbatches += 2) {
      shapes.push_back({PipelineSchedule::interleaved, 2, chunks, microbatches});
    }
  }
  for (const PipelineShape& shape : shapes) {
    SCOPED_TRACE(describe(shape));
    Simulation(shape).run();
    if (HasFailure()) return;
  }
}

TEST(PipelineActions, IdleAsLongAsTheClosedFormSays) {
  for (const PipelineShape& shape : all_shapes()) {
    SCOPED_TRACE(describe(shape));
    const int busy = 3 * shape.num_chunks * shape.num_microbatches;
    const int time = Simulation(shape).run();
    EXPECT_DOUBLE_EQ(bubble_share(shape), static_cast<double>(time - busy) / time);
  }
  EXPECT_DOUBLE_EQ(bubble_share({.num_ranks = 4, .num_microbatches = 8}), 3.0 / 11);
  EXPECT_DOUBLE_EQ(bubble_share({PipelineSchedule::interleaved, 4, 2, 8}), 3.0 / 19);
}

TEST(PipelineActions, BoundMicrobatchesInFlight) {
  for (const PipelineShape& shape : all_shapes()) {
    SCOPED_TRACE(describe(shape));
    for (int rank = 0; rank < shape.num_ranks; ++rank) {
      std::vector<PipelineAction> actions = pipeline_actions(shape, rank);
      const int behind = shape.num_ranks - 1 - rank;
      const bool simple = shape.schedule == PipelineSchedule::one_f_one_b;
      const int bound =
          simple ? behind + 1 : 2 * behind + (shape.num_chunks - 1) * shape.num_ranks + 1;
      for (PipelineAction& a : actions) a.chunk = 0;  // of all chunks together
      EXPECT_EQ(max_in_flight(actions, 0),
                std::min(bound, shape.num_chunks * shape.num_microbatches));
    }
  }
}

TEST(MaxInFlight, CountsTheChunkAlone) {
  const std::vector<PipelineAction> actions = {
      {Kind::forward, 0, 0},  {Kind::forward, 1, 0},         {Kind::forward, 0, 1},
      {Kind::backward, 1, 0}, {Kind::send_gradient, 0, 0},   {Kind::backward, 0, 0},
      {Kind::forward, 0, 2},  {Kind::receive_gradient, 0, 1}};
  EXPECT_EQ(max_in_flight(actions, 0), 2);
  EXPECT_EQ(max_in_flight(actions, 1), 1);
  EXPECT_EQ(max_in_flight(actions, 2), 0);
}

TEST(PipelineActions, RefuseWhatNoScheduleRuns) {
  const auto actions = [](const PipelineShape& shape, int rank = 0) {
    return pipeline_actions(shape, rank);
  };
  EXPECT_THROW(actions({.num_ranks = 2, .num_chunks = 2}), LogicError);
  EXPECT_THROW(actions({PipelineSchedule::interleaved, 1, 2, 2}), LogicError);
  EXPECT_THROW(actions({PipelineSchedule::interleaved, 2, 1, 2}), LogicError);
  EXPECT_THROW(actions({PipelineSchedule::interleaved, 2, 2, 3}), LogicError);
  EXPECT_THROW(actions({.num_ranks = 0}), LogicError);
  EXPECT_THROW(actions({.num_microbatches = 0}), LogicError);
  EXPECT_THROW(actions({.num_ranks = 2}, 2), LogicError);
  EXPECT_THROW(actions({.num_ranks = 2}, -1), LogicError);
  EXPECT_THROW(bubble_share({.num_microbatches = 0}), LogicError);
  EXPECT_THROW(peer_of(Kind::forward, 2, 0), LogicError);
  EXPECT_THROW(peer_of(Kind::backward, 2, 0), LogicError);
}

TEST(SplitLayers, GivesTheHeadsStageNoExtraLayer) {
  EXPECT_THAT(split_layers(8, 4), ElementsAre(0, 2, 4, 6, 8));
  EXPECT_THAT(split_layers(9, 4), ElementsAre(0, 2, 4, 7, 9));
  EXPECT_THAT(split_layers(10, 4), ElementsAre(0, 2, 5, 8, 10));
  EXPECT_THAT(split_layers(11, 4), ElementsAre(0, 3, 6, 9, 11));
  EXPECT_THAT(split_layers(5, 1), ElementsAre(0, 5));
  EXPECT_THAT(split_layers(1, 3), ElementsAre(0, 0, 1, 1));
  EXPECT_THROW(split_layers(-1, 1), LogicError);
  EXPECT_THROW(split_layers(1, 0), LogicError);
}

}  // namespace
}  // namespace jamba

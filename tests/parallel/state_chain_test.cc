#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "parallel/context_parallel.h"
#include "tests/parallel/rank_tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using Direction = StateChain::Direction;

constexpr std::int64_t kBatch = 2, kChannels = 10, kState = 3, kStep = 4;

/// A rank's part of the sum that is handed on.
GuardedTensor own_part(int rank) {
  return test::whole_numbers(DType::f32, {kBatch, kChannels, kState}, "part", rank);
}

/// next[:, begin : begin + count] = last + part.
void advance(const Tensor& next, const Tensor& last, const Tensor& part, std::int64_t begin,
             std::int64_t count) {
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t c = begin; c < begin + count; ++c) {
      for (std::int64_t s = 0; s < kState; ++s) {
        const std::int64_t i = (b * kChannels + c) * kState + s;
        next.ptr<float>()[i] = last.ptr<float>()[i] + part.ptr<float>()[i];
      }
    }
  }
}

/// Every rank ends up with the sum of the parts of all ranks before it in the chain and its own.
void check_chain(Communicator& cp, Direction direction) {
  Stream stream = Stream::cpu(1);
  Arena scratch;
  scratch.poison_on(stream);
  const bool forward = direction == Direction::forward;
  const int place = forward ? cp.rank() : cp.size() - 1 - cp.rank();
  StateChain chain(cp, direction);
  EXPECT_EQ(chain.receives(), place > 0);
  EXPECT_EQ(chain.sends(), place + 1 < cp.size());
  const GuardedTensor last(DType::f32, {kBatch, kChannels, kState});
  const GuardedTensor next(DType::f32, {kBatch, kChannels, kState});
  if (!chain.receives()) {
    test::from_doubles(last.tensor(), std::vector<double>(kBatch * kChannels * kState));
  }
  const std::int64_t sent = cp.bytes_sent();
  for (std::int64_t begin = 0; begin < kChannels; begin += kStep) {
    const std::int64_t count = std::min(kStep, kChannels - begin);
    chain.receive(stream, scratch, last.tensor(), begin, count);
    advance(next.tensor(), last.tensor(), own_part(cp.rank()).tensor(), begin, count);
    chain.send(stream, scratch, next.tensor(), begin, count);
    const Arena::Mark mark = scratch.mark();  // others use scratch between blocks
    scratch.allocate(DType::f32, {kBatch * kChannels * kState});
    scratch.release(mark);
  }
  chain.finish();
  EXPECT_EQ(cp.bytes_sent() - sent, chain.sends() ? kBatch * kChannels * kState * 4 : 0);

  std::vector<double> want(kBatch * kChannels * kState);
  for (int p = 0; p <= place; ++p) {
    const std::vector<double> part = own_part(forward ? p : cp.size() - 1 - p).values();
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += part[i];
  }
  EXPECT_EQ(next.values(), want);
  EXPECT_TRUE(last.guards_intact());
}

TEST(StateChain, HandsOverBlocksInOrderBothWays) {
  for (const int ranks : {1, 2, 3, 4}) {
    run_ranks(ranks, [](Communicator& cp) {
      check_chain(cp, Direction::forward);
      check_chain(cp, Direction::backward);
    });
  }
}

/// The first rank does not go on before the last has had its first block.
TEST(StateChain, HandsOverABlockBeforeTheNextIsReady) {
  run_ranks(3,
            [](Communicator& cp) {
              Stream stream = Stream::cpu(1);
              Arena scratch;
              const GuardedTensor state = own_part(0);
              float token = 0;
              const Tensor seen(&token, DType::f32, {1});
              StateChain chain(cp, Direction::forward);
              for (const std::int64_t begin : {0, 5}) {
                chain.receive(stream, scratch, state.tensor(), begin, 5);
                chain.send(stream, scratch, state.tensor(), begin, 5);
                if (cp.rank() == 0) cp.start_receive(stream, seen, 2).wait();
                if (cp.rank() == 2) cp.start_send(stream, seen, 0).wait();
              }
              chain.finish();
            },
            {.timeout_seconds = 20});
}

}  // namespace
}  // namespace jamba

#include "parallel/context_parallel.h"

#include <gtest/gtest.h>

#include <functional>

#include "parallel/comm/thread_group.h"
#include "tests/parallel/rank_tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using Doubles = std::vector<double>;

struct Case {
  int ranks;
  std::int64_t batch, whole_seq;
  DType dtype;

  SequenceSplit split() const { return {whole_seq, ranks}; }
  std::int64_t seq(int rank) const { return split().seq(rank); }
  std::int64_t first(int rank) const { return split().first(rank); }
};

using Body = std::function<void(Communicator&, const Case&, Stream&, Arena& scratch)>;

void for_each_case(const Body& body) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const std::int64_t batch : {1, 3}) {
      for (const std::int64_t seq : {12, 17}) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
          SCOPED_TRACE(fmt::format("{} ranks, {} sequences of {} tokens, {}", ranks, batch, seq,
                                   dtype_name(dtype)));
          run_ranks(ranks, [&](Communicator& cp) {
            Stream stream = Stream::cpu(1);
            Arena scratch;
            scratch.poison_on(stream);
            body(cp, {ranks, batch, seq, dtype}, stream, scratch);
          });
        }
      }
    }
  }
}

/// What all ranks hold together, [batch, whole_seq, width]: a number that tells its place.
double at(std::int64_t b, std::int64_t t, std::int64_t column) {
  return static_cast<double>((b * 83 + t * 7 + column * 29) % 251);
}

/// Tokens [first, end) of columns [begin, begin + width) of all sequences.
Doubles part(const Case& c, std::int64_t first, std::int64_t end, std::int64_t begin,
             std::int64_t width) {
  Doubles values;
  for (std::int64_t b = 0; b < c.batch; ++b) {
    for (std::int64_t t = first; t < end; ++t) {
      for (std::int64_t i = 0; i < width; ++i) values.push_back(at(b, t, begin + i));
    }
  }
  return values;
}

GuardedTensor own_tokens(const Case& c, int rank, std::int64_t width) {
  return {
      c.dtype, {c.batch * c.seq(rank), width}, part(c, c.first(rank), c.first(rank + 1), 0, width)};
}

// --- Splits
// ---------------------------------------------------------------------------------------

TEST(SequenceSplit, CoversASequenceEvenly) {
  const SequenceSplit split{17, 4};
  for (int r = 0; r < 4; ++r) EXPECT_EQ(split.seq(r), r == 3 ? 5 : 4);
  EXPECT_EQ(split.first(0), 0);
  EXPECT_EQ(split.first(4), 17);
}

TEST(HeadDeal, GivesEveryRankHeadsOrAShareOfOne) {
  const HeadDeal many{6, 3}, few{2, 4};
  EXPECT_EQ(many.count(), 2);
  EXPECT_EQ(many.copies(), 1);
  EXPECT_EQ(many.first(2), 4);
  EXPECT_EQ(few.count(), 1);
  EXPECT_EQ(few.copies(), 2);
  EXPECT_EQ(few.first(1), 0);
  EXPECT_EQ(few.first(2), 1);
}

TEST(HeadDeal, IsPossibleWhereRanksHaveTheKeysOfTheirQueries) {
  EXPECT_TRUE(deals_heads(8, 4, 4));
  EXPECT_TRUE(deals_heads(8, 2, 4));
  EXPECT_TRUE(deals_heads(8, 1, 8));
  EXPECT_FALSE(deals_heads(6, 2, 4));
  EXPECT_FALSE(deals_heads(12, 6, 4));
}

// --- Tokens and heads
// -----------------------------------------------------------------------------

constexpr std::int64_t kHeadDim = 3;

/// The numbers of heads that a case's ranks can deal.
std::vector<HeadDeal> deals(const Case& c) {
  std::vector<HeadDeal> out;
  for (const std::int64_t heads : {1, 2, 3, 4, 6, 8}) {
    if (heads % c.ranks == 0 || c.ranks % heads == 0) out.push_back({heads, c.ranks});
  }
  return out;
}

TEST(TokensToHeads, BringsAllTokensOfOwnHeadsAndBack) {
  for_each_case([](Communicator& cp, const Case& c, Stream& stream, Arena& scratch) {
    for (const HeadDeal& deal : deals(c)) {
      SCOPED_TRACE(deal.heads);
      const std::int64_t width = deal.count() * kHeadDim, all = deal.heads * kHeadDim;
      const GuardedTensor x = own_tokens(c, cp.rank(), all);
      const GuardedTensor whole(c.dtype, {c.batch * c.whole_seq, width});
      tokens_to_heads(stream, scratch, cp, whole.tensor(), x.tensor(), deal, c.split());
      EXPECT_EQ(whole.values(), part(c, 0, c.whole_seq, deal.first(cp.rank()) * kHeadDim, width));
      if (deal.copies() > 1) continue;
      const GuardedTensor back(c.dtype, {c.batch * c.seq(cp.rank()), all});
      heads_to_tokens(stream, scratch, cp, back.tensor(), whole.tensor(), deal, c.split());
      EXPECT_EQ(back.values(), x.values());
      EXPECT_TRUE(whole.guards_intact() && back.guards_intact());
    }
  });
}

TEST(TokensToHeads, HasHeadsToTokensAsItsTranspose) {
  for_each_case([](Communicator& cp, const Case& c, Stream& stream, Arena& scratch) {
    for (const HeadDeal& deal : deals(c)) {
      const std::int64_t width = deal.count() * kHeadDim, all = deal.heads * kHeadDim;
      const std::int64_t tokens = c.batch * c.seq(cp.rank());
      const auto x = test::whole_numbers(c.dtype, {tokens, all}, "x", cp.rank());
      const auto y = test::whole_numbers(c.dtype, {c.batch * c.whole_seq, width}, "y", cp.rank());
      const GuardedTensor whole(c.dtype, {c.batch * c.whole_seq, width});
      const GuardedTensor back(c.dtype, {tokens, all});
      std::int64_t sent = cp.bytes_sent();
      tokens_to_heads(stream, scratch, cp, whole.tensor(), x.tensor(), deal, c.split());
      const std::int64_t row = width * dtype_bytes(c.dtype);
      EXPECT_EQ(cp.bytes_sent() - sent, (c.ranks - 1) * tokens * row);
      sent = cp.bytes_sent();
      heads_to_tokens(stream, scratch, cp, back.tensor(), y.tensor(), deal, c.split());
      EXPECT_EQ(cp.bytes_sent() - sent, (c.batch * c.whole_seq - tokens) * row);
      EXPECT_EQ(test::dot_over_ranks(cp, whole.tensor(), y.tensor()),
                test::dot_over_ranks(cp, x.tensor(), back.tensor()));
    }
  });
}

/// 256 + 1 + 1 + 1: bfloat16 has 256, 258 and 260.
GuardedTensor rounding_terms(int rank, std::int64_t rows, std::int64_t width) {
  const auto n = static_cast<std::size_t>(rows * width);
  return {DType::bf16, {rows, width}, Doubles(n, rank == 0 ? 256 : 1)};
}

TEST(TokensToHeads, RoundsTheSumOfCopiesOnce) {
  run_ranks(4, [](Communicator& cp) {
    Stream stream = Stream::cpu(1);
    Arena scratch;
    const GuardedTensor x(DType::bf16, {2, 3});
    heads_to_tokens(stream, scratch, cp, x.tensor(), rounding_terms(cp.rank(), 8, 3).tensor(),
                    {1, 4}, {8, 4});
    EXPECT_EQ(x.values(), Doubles(6, 260));
  });
}

// --- The past
// -------------------------------------------------------------------------------------

TEST(GatherPast, BringsAllTokensUpToOwn) {
  for_each_case([](Communicator& cp, const Case& c, Stream& stream, Arena& scratch) {
    const std::int64_t end = c.first(cp.rank() + 1);
    const GuardedTensor x = own_tokens(c, cp.rank(), 5);
    const GuardedTensor past(c.dtype, {c.batch * end, 5});
    const std::int64_t sent = cp.bytes_sent();
    gather_past(stream, scratch, cp, past.tensor(), x.tensor(), c.split());
    EXPECT_EQ(past.values(), part(c, 0, end, 0, 5));
    EXPECT_TRUE(past.guards_intact());
    EXPECT_EQ(cp.bytes_sent() - sent, (c.ranks - 1 - cp.rank()) * x.tensor().bytes());
  });
}

TEST(GatherPast, HasScatterPastAsItsTranspose) {
  for_each_case([](Communicator& cp, const Case& c, Stream& stream, Arena& scratch) {
    const std::int64_t tokens = c.batch * c.seq(cp.rank());
    const std::int64_t known = c.batch * c.first(cp.rank() + 1);
    const auto x = test::whole_numbers(c.dtype, {tokens, 5}, "x", cp.rank());
    const auto y = test::whole_numbers(c.dtype, {known, 5}, "y", cp.rank());
    const GuardedTensor past(c.dtype, {known, 5}), dx(c.dtype, {tokens, 5});
    gather_past(stream, scratch, cp, past.tensor(), x.tensor(), c.split());
    const std::int64_t sent = cp.bytes_sent();
    scatter_past(stream, scratch, cp, dx.tensor(), y.tensor(), c.split());
    EXPECT_EQ(cp.bytes_sent() - sent, y.tensor().bytes() - x.tensor().bytes());
    EXPECT_EQ(test::dot_over_ranks(cp, past.tensor(), y.tensor()),
              test::dot_over_ranks(cp, x.tensor(), dx.tensor()));
    EXPECT_TRUE(dx.guards_intact());
  });
}

TEST(GatherPast, RoundsTheSumOfGradientsOnce) {
  run_ranks(4, [](Communicator& cp) {
    Stream stream = Stream::cpu(1);
    Arena scratch;
    const GuardedTensor x(DType::bf16, {2, 3});
    const GuardedTensor past = rounding_terms(cp.rank(), 2 * (cp.rank() + 1), 3);
    scatter_past(stream, scratch, cp, x.tensor(), past.tensor(), {8, 4});
    if (cp.rank() > 0) return;
    EXPECT_EQ(x.values(), Doubles(6, 260));
  });
}

// --- The halo
// -------------------------------------------------------------------------------------

TEST(Halo, IsTheTailOfTheRankBefore) {
  for_each_case([](Communicator& cp, const Case& c, Stream& stream, Arena& scratch) {
    for (const std::int64_t taps : {1, 3}) {
      const std::int64_t first = c.first(cp.rank());
      const GuardedTensor x = own_tokens(c, cp.rank(), 4);
      const GuardedTensor halo(c.dtype, {c.batch, taps, 4});
      const std::int64_t sent = cp.bytes_sent();
      receive_halo(stream, scratch, cp, halo.tensor(),
                   x.tensor().view({c.batch, c.seq(cp.rank()), 4}));
      const auto none = Doubles(static_cast<std::size_t>(c.batch * taps * 4));
      EXPECT_EQ(halo.values(), cp.rank() == 0 ? none : part(c, first - taps, first, 0, 4));
      EXPECT_EQ(cp.bytes_sent() - sent, cp.rank() + 1 < c.ranks ? halo.tensor().bytes() : 0);
      EXPECT_TRUE(halo.guards_intact());
    }
  });
}

/// With dx of zeros: <halo of x, dhalo> = <x, dx>. And what dx held stays in it.
TEST(Halo, IsReturnedByItsTranspose) {
  for_each_case([](Communicator& cp, const Case& c, Stream& stream, Arena& scratch) {
    const std::int64_t taps = 3, seq = c.seq(cp.rank());
    const auto x = test::whole_numbers(c.dtype, {c.batch, seq, 4}, "x", cp.rank());
    const auto dhalo = test::whole_numbers(c.dtype, {c.batch, taps, 4}, "dhalo", cp.rank());
    const auto held = test::whole_numbers(c.dtype, {c.batch, seq, 4}, "dx", cp.rank());
    const GuardedTensor halo(c.dtype, {c.batch, taps, 4}), dx(c.dtype, {c.batch, seq, 4});
    test::from_doubles(dx.tensor(), held.values());
    receive_halo(stream, scratch, cp, halo.tensor(), x.tensor());
    const std::int64_t sent = cp.bytes_sent();
    return_halo(stream, scratch, cp, dx.tensor(), dhalo.tensor());
    EXPECT_EQ(cp.bytes_sent() - sent, cp.rank() > 0 ? dhalo.tensor().bytes() : 0);
    EXPECT_EQ(test::dot_over_ranks(cp, halo.tensor(), dhalo.tensor()),
              test::dot_over_ranks(cp, x.tensor(), dx.tensor()) -
                  test::dot_over_ranks(cp, x.tensor(), held.tensor()));
    EXPECT_TRUE(dx.guards_intact());
  });
}

}  // namespace
}  // namespace jamba

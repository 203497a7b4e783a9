#include "parallel/tensor_parallel.h"

#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "tests/parallel/rank_tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::to_doubles;
using test::whole_numbers;

constexpr std::int64_t kCols = 3;

struct Case {
  int ranks;
  bool sequence;
  std::int64_t tokens;
  DType dtype;
};

template <class Body>
void for_each_case(const Body& body) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const bool sequence : {false, true}) {
      for (const std::int64_t tokens : {1, 4, 5, 8, 9}) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
          SCOPED_TRACE(fmt::format("{} ranks, sequence {}, {} tokens, {}", ranks, sequence, tokens,
                                   dtype_name(dtype)));
          run_ranks(ranks, [&](Communicator& tp) {
            body(tp, Case{ranks, sequence, tokens, dtype});
          });
        }
      }
    }
  }
}

/// The rows of a rank's residual stream that stand for tokens.
std::int64_t real_rows(const TensorRegion& region, std::int64_t tokens) {
  if (!region.splits_rows()) return tokens;
  const std::int64_t rows = region.rows(tokens), first = region.tp().rank() * rows;
  return std::clamp<std::int64_t>(tokens - first, 0, rows);
}

void zero_from(const Tensor& t, std::int64_t row) {
  std::vector<double> values = to_doubles(t);
  std::fill(values.begin() + row * t.cols(), values.end(), 0.0);
  test::from_doubles(t, values);
}

TEST(TensorRegion, SplitsRowsEvenlyAndRoundsUp) {
  run_ranks(4, [](Communicator& tp) {
    const TensorRegion split(tp, true), plain(tp, false);
    EXPECT_TRUE(split.splits_rows());
    EXPECT_FALSE(plain.splits_rows());
    EXPECT_EQ(split.rows(8), 2);
    EXPECT_EQ(split.rows(5), 2);
    EXPECT_EQ(split.rows(1), 1);
    EXPECT_EQ(plain.rows(5), 5);
  });
  const auto alone = make_single_rank();
  EXPECT_FALSE(TensorRegion(*alone, true).splits_rows());
}

/// Sequence-parallel: row t of what is gathered is row t - r * rows of rank r. Plain: x itself.
TEST(TensorRegion, GathersTheRowsOfAllTokens) {
  for_each_case([](Communicator& tp, const Case& c) {
    Stream stream = Stream::cpu(1);
    Arena scratch;
    scratch.poison_on(stream);
    const TensorRegion region(tp, c.sequence);
    const std::int64_t rows = region.rows(c.tokens);
    const GuardedTensor x = whole_numbers(c.dtype, {rows, kCols}, "x", tp.rank());
    const Tensor all = region.gather(stream, scratch, x.tensor(), c.tokens);
    if (!region.splits_rows()) {
      EXPECT_EQ(all.raw(), x.tensor().raw());
      return;
    }
    ASSERT_EQ(all.rows(), c.tokens);
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      const GuardedTensor of =
          whole_numbers(c.dtype, {rows, kCols}, "x", static_cast<int>(t / rows));
      EXPECT_EQ(to_doubles(all.slice(t, 1)), to_doubles(of.tensor().slice(t % rows, 1)));
    }
  });
}

/// y's rows of tokens are the sum over ranks, and all others zero.
TEST(TensorRegion, ReducesToTheSumAndZeroPadding) {
  for_each_case([](Communicator& tp, const Case& c) {
    Stream stream = Stream::cpu(1);
    Arena scratch;
    scratch.poison_on(stream);
    const TensorRegion region(tp, c.sequence);
    const std::int64_t rows = region.rows(c.tokens);
    const GuardedTensor y(c.dtype, {rows, kCols});
    const auto partial = region.partial(stream, scratch, y.tensor(), c.tokens);
    ASSERT_EQ(partial.tokens.rows(), c.tokens);
    std::vector<double> sums(static_cast<std::size_t>(c.tokens * kCols));
    for (int r = 0; r < c.ranks; ++r) {
      const GuardedTensor part = whole_numbers(c.dtype, {c.tokens, kCols}, "part", r);
      const std::vector<double> values = part.values();
      if (r == tp.rank()) test::from_doubles(partial.tokens, values);
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += values[i];
    }
    region.reduce(stream, y.tensor(), partial);
    const std::int64_t first = region.splits_rows() ? tp.rank() * rows : 0;
    std::vector<double> want(static_cast<std::size_t>(rows * kCols));
    for (std::int64_t i = 0; i < real_rows(region, c.tokens) * kCols; ++i) {
      want[static_cast<std::size_t>(i)] = sums[static_cast<std::size_t>(first * kCols + i)];
    }
    EXPECT_EQ(y.values(), want);
    EXPECT_TRUE(y.guards_intact());
  });
}

/// Sequence-parallel: <gather x, y> = <x, reduce y>. Plain, where every rank holds the same x: the
/// all-reduce is the transpose of using it on all ranks.
TEST(TensorRegion, EnterAndLeaveAreAdjoint) {
  for_each_case([](Communicator& tp, const Case& c) {
    Stream stream = Stream::cpu(1);
    Arena scratch;
    scratch.poison_on(stream);
    const TensorRegion region(tp, c.sequence);
    const std::int64_t rows = region.rows(c.tokens);
    const int owner = region.splits_rows() ? tp.rank() : 0;
    const GuardedTensor x = whole_numbers(c.dtype, {rows, kCols}, "x", owner);
    zero_from(x.tensor(), real_rows(region, c.tokens));
    const GuardedTensor y = whole_numbers(c.dtype, {c.tokens, kCols}, "y", tp.rank());
    const GuardedTensor dx(c.dtype, {rows, kCols});

    const Tensor all = region.gather(stream, scratch, x.tensor(), c.tokens);
    const std::int64_t forward = test::dot_over_ranks(tp, all, y.tensor());
    const auto partial = region.partial(stream, scratch, dx.tensor(), c.tokens);
    test::from_doubles(partial.tokens, y.values());
    region.finish_reduce(stream, dx.tensor(), partial, region.start_reduce(stream, partial));
    const std::int64_t backward = test::dot_over_ranks(tp, x.tensor(), dx.tensor());
    EXPECT_EQ(backward, region.splits_rows() ? forward : forward * c.ranks);
  });
}

/// In bfloat16, 256 + 1 + ... + 1 is 256 if every step rounds.
TEST(TensorRegion, RoundsASumOnce) {
  for (const bool sequence : {false, true}) {
    run_ranks(4, [&](Communicator& tp) {
      Stream stream = Stream::cpu(1);
      Arena scratch;
      const TensorRegion region(tp, sequence);
      const GuardedTensor y(DType::bf16, {region.rows(4), kCols});
      const auto partial = region.partial(stream, scratch, y.tensor(), 4);
      const double mine = tp.rank() == 0 ? 256 : 2.0 / 3;
      test::from_doubles(partial.tokens, std::vector<double>(4 * kCols, mine));
      region.reduce(stream, y.tensor(), partial);
      for (const double value : y.values()) EXPECT_EQ(value, 258);
    });
  }
}

TEST(TensorRegion, SendsAsItsTableSays) {
  run_ranks(4, [](Communicator& tp) {
    Stream stream = Stream::cpu(1);
    Arena scratch;
    const std::int64_t rows = 2, bytes = rows * kCols * 4;
    const GuardedTensor x = whole_numbers(DType::f32, {rows, kCols}, "x", tp.rank());
    const TensorRegion split(tp, true);
    std::int64_t before = tp.bytes_sent();
    split.gather(stream, scratch, x.tensor(), 5);
    EXPECT_EQ(tp.bytes_sent() - before, 3 * bytes);
    before = tp.bytes_sent();
    const auto partial = split.partial(stream, scratch, x.tensor(), 5);
    zero_from(partial.tokens, 0);
    split.reduce(stream, x.tensor(), partial);
    EXPECT_EQ(tp.bytes_sent() - before, 3 * bytes);

    const TensorRegion plain(tp, false);
    before = tp.bytes_sent();
    plain.gather(stream, scratch, x.tensor(), rows);
    EXPECT_EQ(tp.bytes_sent(), before);
  });
}

}  // namespace
}  // namespace jamba

#include "kernels/embedding/embedding.h"

#include <gtest/gtest.h>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Values;

/// A rank's rows [first, first + rows) of a table of vocab rows; rows < 0: all.
struct Dims {
  std::int64_t tokens, vocab, model;
  std::int64_t first = 0, rows = -1;
};

constexpr std::int64_t kNoPadding = -1;

OpCase embedding_case(Dims d, DType dtype) {
  if (d.rows < 0) d.rows = d.vocab;
  OpCase op;
  op.name = fmt::format("embedding {} [{} of {}, {}], rows {} + {}", dtype_name(dtype), d.tokens,
                        d.vocab, d.model, d.first, d.rows);
  op.inputs = {{.name = "table",
                .dtype = dtype,
                .dims = {d.rows, d.model},
                .values = test::normal_values(d.rows * d.model, 1, "table"),
                .gradient_accumulates = true},
               {.name = "ids",
                .dtype = DType::i32,
                .dims = {d.tokens},
                .values = test::integer_values(d.tokens, 2, "ids", 0, d.vocab),
                .differentiable = false}};
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {d.tokens, d.model}}};
  op.reference = [d](const std::vector<Values>& in) {
    Values y;
    for (std::int64_t t = 0; t < d.tokens; ++t) {
      const auto row = static_cast<std::int64_t>(in[1][t].real()) - d.first;
      const bool here = row >= 0 && row < d.rows;
      for (std::int64_t i = 0; i < d.model; ++i) {
        y.push_back(here ? in[0][row * d.model + i] : 0);
      }
    }
    return std::vector<Values>{y};
  };
  op.forward = [d](Stream& s, Arena&, auto in, auto out) {
    embedding_forward(s, out[0], in[1], in[0], d.first, d.vocab);
  };
  op.backward = [d](Stream& s, Arena& arena, auto in, auto, auto dout, auto din) {
    embedding_backward(s, arena, din[0], dout[0], in[1], d.first, d.vocab, kNoPadding);
  };
  return op;
}

TEST(Embedding, MatchesReferenceForwardAndBackward) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_op(embedding_case({1, 1, 1}, dtype));
    check_op(embedding_case({40, 7, 19}, dtype));  // every id several times
    check_op(embedding_case({9, 30, 67}, dtype));
  }
}

TEST(Embedding, SkipsIdsOfOtherRanks) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_op(embedding_case({40, 7, 19, 0, 3}, dtype));
    check_op(embedding_case({40, 7, 19, 3, 4}, dtype));
    check_op(embedding_case({40, 7, 19, 2, 1}, dtype));
    check_op(embedding_case({5, 7, 3, 7, 0}, dtype));
  }
}

/// Backward of all of dtable's rows.
void backward(Stream& stream, const GuardedTensor& dtable, const GuardedTensor& dy,
              const GuardedTensor& ids, std::int64_t padding_id = kNoPadding) {
  Arena scratch(test::device());
  scratch.poison_on(stream);
  embedding_backward(stream, scratch, dtable.tensor(), dy.tensor(), ids.tensor(), 0,
                     dtable.tensor().dim(0), padding_id);
}

TEST(Embedding, AddsTokensInOrderOnAnyNumberOfThreads) {
  // 2^24 swallows a 1 that comes after it and keeps the sum of two that come before.
  constexpr double kBig = 16777216;
  const GuardedTensor ids(DType::i32, {3}, {1, 1, 1});
  const std::vector<double> column = {1, 1, kBig};
  std::vector<double> dy;
  for (const double value : column) dy.insert(dy.end(), 40, value);
  for (const int threads : {1, 2, 3}) {
    const GuardedTensor d(DType::f32, {3, 40}, dy);
    const GuardedTensor dtable(DType::f32, {2, 40}, std::vector<double>(80, 0.0));
    Stream stream = test::make_stream(threads);
    backward(stream, dtable, d, ids);
    const std::vector<double> got = dtable.values();
    for (int i = 0; i < 40; ++i) EXPECT_EQ(got[40 + i], kBig + 2) << i;
  }
}

TEST(Embedding, RoundsTheSumOfARowBeforeItAddsIt) {
  // Added one by one, the ones would vanish beside what the row holds.
  constexpr double kBig = 16777216;
  const GuardedTensor ids(DType::i32, {4}, {1, 0, 1, 2}), dy(DType::f32, {4, 1}, {1, 5, 1, 7});
  const GuardedTensor dtable(DType::f32, {3, 1}, {kBig, kBig, 0});
  Stream stream = test::make_stream(1);
  backward(stream, dtable, dy, ids);
  EXPECT_EQ(dtable.values(), (std::vector<double>{kBig + 4, kBig + 2, 7}));
}

/// What earlier calls left in the scratch memory must not pass for this call's tokens.
TEST(Embedding, ReusesScratchOfOtherIds) {
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  const auto gradient = [&](Arena& arena, std::uint64_t seed) {
    const GuardedTensor ids(DType::i32, {50}, test::integer_values(50, seed, "ids", 0, 20));
    const GuardedTensor dy(DType::f32, {50, 3}, test::normal_values(150, seed, "dy"));
    const GuardedTensor dtable(DType::f32, {20, 3}, std::vector<double>(60, 0.0));
    embedding_backward(stream, arena, dtable.tensor(), dy.tensor(), ids.tensor(), 0, 20,
                       kNoPadding);
    return dtable.values();
  };
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    Arena fresh(test::device());
    fresh.poison_on(stream);
    EXPECT_EQ(gradient(scratch, seed), gradient(fresh, seed)) << seed;
  }
}

TEST(Embedding, GivesThePaddingRowNoGradient) {
  const GuardedTensor ids(DType::i32, {3}, {0, 2, 0});
  const GuardedTensor dy(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6});
  const GuardedTensor dtable(DType::f32, {3, 2}, {10, 10, 10, 10, 10, 10});
  Stream stream = test::make_stream(2);
  backward(stream, dtable, dy, ids, 0);
  EXPECT_EQ(dtable.values(), (std::vector<double>{10, 10, 10, 10, 13, 14}));
}

TEST(Embedding, TakesBadIdsOnADeviceForThoseOfAnotherRank) {
  if (!test::on_cuda()) GTEST_SKIP() << "the CPU rejects them";
  const GuardedTensor table(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6}), y(DType::f32, {2, 2});
  const GuardedTensor ids(DType::i32, {2}, {-7, 3}), dtable(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6});
  Stream stream = test::make_stream(1);
  embedding_forward(stream, y.tensor(), ids.tensor(), table.tensor(), 0, 3);
  EXPECT_EQ(y.values(), std::vector<double>(4, 0.0));
  backward(stream, dtable, y, ids);
  EXPECT_EQ(dtable.values(), table.values());
}

/// Ids of more than one radix digit, and of more than one tile of tokens.
TEST(Embedding, SumsRowsOfALargeVocabularyInOrder) {
  constexpr std::int64_t kTokens = 700, kVocab = 70000, kModel = 5;
  std::vector<double> ids = test::integer_values(kTokens, 3, "ids", 0, kVocab);
  for (std::size_t t = 0; t < ids.size(); t += 3) ids[t] = ids[t % 7];  // some often
  const GuardedTensor id(DType::i32, {kTokens}, ids);
  const GuardedTensor dy(DType::bf16, {kTokens, kModel},
                         test::normal_values(kTokens * kModel, 1, "dy"));
  const std::vector<double> gradient = dy.values();
  std::vector<float> want(kVocab * kModel, 0.0f);
  for (std::int64_t t = 0; t < kTokens; ++t) {
    for (std::int64_t i = 0; i < kModel; ++i) {
      want[static_cast<std::int64_t>(ids[t]) * kModel + i] +=
          static_cast<float>(gradient[t * kModel + i]);
    }
  }
  test::for_each_schedule([&](Stream& stream, const std::string& name) {
    const GuardedTensor dtable(DType::f32, {kVocab, kModel},
                               std::vector<double>(kVocab * kModel, 0.0));
    backward(stream, dtable, dy, id);
    EXPECT_EQ(dtable.values(), std::vector<double>(want.begin(), want.end())) << name;
    EXPECT_TRUE(dtable.guards_intact());
  });
}

TEST(Embedding, RejectsIdsOutsideTheVocabulary) {
  const GuardedTensor table(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6}), y(DType::f32, {1, 2});
  const GuardedTensor dtable(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6});
  Stream stream = test::make_stream(1);
  for (const double id : {-1.0, 3.0}) {
    if (test::on_cuda()) break;  // nobody reads ids on the host
    const GuardedTensor ids(DType::i32, {1}, {id});
    EXPECT_THROW(embedding_forward(stream, y.tensor(), ids.tensor(), table.tensor(), 0, 3),
                 LogicError);
    EXPECT_THROW(backward(stream, dtable, y, ids), LogicError);
  }
  EXPECT_EQ(dtable.values(), table.values());
  const GuardedTensor ids(DType::i32, {2}, {0, 0}), one(DType::i32, {1}, {0.0});
  EXPECT_THROW(embedding_forward(stream, y.tensor(), ids.tensor(), table.tensor(), 0, 3),
               LogicError);
  EXPECT_NO_THROW(embedding_forward(stream, y.tensor(), one.tensor(), table.tensor(), 1, 4));
  EXPECT_THROW(embedding_forward(stream, y.tensor(), one.tensor(), table.tensor(), 1, 3),
               LogicError);
}

}  // namespace
}  // namespace jamba

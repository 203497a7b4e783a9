#include "kernels/embedding/embedding.h"

#include <gtest/gtest.h>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Values;

struct Dims {
  std::int64_t tokens, vocab, model;
};

constexpr std::int64_t kNoPadding = -1;

OpCase embedding_case(const Dims& d, DType dtype) {
  OpCase op;
  op.name =
      fmt::format("embedding {} [{} of {}, {}]", dtype_name(dtype), d.tokens, d.vocab, d.model);
  op.inputs = {{.name = "table",
                .dtype = dtype,
                .dims = {d.vocab, d.model},
                .values = test::normal_values(d.vocab * d.model, 1, "table"),
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
      const auto id = static_cast<std::int64_t>(in[1][t].real());
      for (std::int64_t i = 0; i < d.model; ++i) y.push_back(in[0][id * d.model + i]);
    }
    return std::vector<Values>{y};
  };
  op.forward = [](Stream& s, Arena&, auto in, auto out) {
    embedding_forward(s, out[0], in[1], in[0]);
  };
  op.backward = [](Stream& s, Arena&, auto in, auto, auto dout, auto din) {
    embedding_backward(s, din[0], dout[0], in[1], kNoPadding);
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
    Stream stream = Stream::cpu(threads);
    embedding_backward(stream, dtable.tensor(), d.tensor(), ids.tensor(), kNoPadding);
    const std::vector<double> got = dtable.values();
    for (int i = 0; i < 40; ++i) EXPECT_EQ(got[40 + i], kBig + 2) << i;
  }
}

TEST(Embedding, GivesThePaddingRowNoGradient) {
  const GuardedTensor ids(DType::i32, {3}, {0, 2, 0});
  const GuardedTensor dy(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6});
  const GuardedTensor dtable(DType::f32, {3, 2}, {10, 10, 10, 10, 10, 10});
  Stream stream = Stream::cpu(2);
  embedding_backward(stream, dtable.tensor(), dy.tensor(), ids.tensor(), 0);
  EXPECT_EQ(dtable.values(), (std::vector<double>{10, 10, 10, 10, 13, 14}));
}

TEST(Embedding, RejectsIdsOutsideTheVocabulary) {
  const GuardedTensor table(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6}), y(DType::f32, {1, 2});
  const GuardedTensor dtable(DType::f32, {3, 2}, {1, 2, 3, 4, 5, 6});
  Stream stream = Stream::cpu(1);
  for (const double id : {-1.0, 3.0}) {
    const GuardedTensor ids(DType::i32, {1}, {id});
    EXPECT_THROW(embedding_forward(stream, y.tensor(), ids.tensor(), table.tensor()), LogicError);
    EXPECT_THROW(embedding_backward(stream, dtable.tensor(), y.tensor(), ids.tensor(), kNoPadding),
                 LogicError);
  }
  EXPECT_EQ(dtable.values(), table.values());
  const GuardedTensor ids(DType::i32, {2}, {0, 0});
  EXPECT_THROW(embedding_forward(stream, y.tensor(), ids.tensor(), table.tensor()), LogicError);
}

}  // namespace
}  // namespace jamba

#include "kernels/attention/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::OpCase;
using test::Scalar;
using test::Values;

constexpr double kTheta = 10000;

struct Dims {
  std::int64_t tokens, heads, head_dim;
};

std::vector<Values> reference(const std::vector<Values>& in, const Dims& d) {
  Values out = in[0];
  for (std::int64_t t = 0; t < d.tokens; ++t) {
    for (std::int64_t h = 0; h < d.heads; ++h) {
      const std::int64_t at = (t * d.heads + h) * d.head_dim, half = d.head_dim / 2;
      for (std::int64_t i = 0; i < half; ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(d.head_dim);
        const double angle = in[1][t].real() * std::pow(kTheta, exponent);
        const Scalar a = in[0][at + i], b = in[0][at + half + i];
        out[at + i] = a * std::cos(angle) - b * std::sin(angle);
        out[at + half + i] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return {out};
}

OpCase rope_case(const Dims& d, DType dtype) {
  const std::int64_t cols = d.heads * d.head_dim;
  OpCase op;
  op.name = fmt::format("rope {} [{}, {} x {}]", dtype_name(dtype), d.tokens, d.heads, d.head_dim);
  op.inputs = {{.name = "x",
                .dtype = dtype,
                .dims = {d.tokens, cols},
                .values = test::normal_values(d.tokens * cols, 1, "x"),
                .gradient_dtype = dtype},
               {.name = "positions",
                .dtype = DType::i32,
                .dims = {d.tokens},
                .values = test::integer_values(d.tokens, 2, "positions", 0, 100000),
                .differentiable = false}};
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {d.tokens, cols}}};
  op.reference = [d](const std::vector<Values>& in) { return reference(in, d); };
  op.forward = [d](Stream& s, Arena&, auto in, auto out) {
    copy(s, out[0], in[0]);
    rope(s, out[0], in[1], d.head_dim, kTheta, Rotation::forward);
  };
  op.backward = [d](Stream& s, Arena&, auto in, auto, auto dout, auto din) {
    copy(s, din[0], dout[0]);
    rope(s, din[0], in[1], d.head_dim, kTheta, Rotation::backward);
  };
  return op;
}

TEST(Rope, MatchesReferenceForwardAndBackward) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check_op(rope_case({1, 1, 2}, dtype));
    check_op(rope_case({19, 3, 12}, dtype));
    check_op(rope_case({2, 1, 150}, dtype));  // more pairs than one pass holds
  }
}

TEST(Rope, LeavesPositionZeroAlone) {
  const test::GuardedTensor x(DType::f32, {1, 8}, test::normal_values(8, 1, "x"));
  const test::GuardedTensor positions(DType::i32, {1}, {0.0});
  const std::vector<double> before = x.values();
  Stream stream = test::make_stream(1);
  rope(stream, x.tensor(), positions.tensor(), 4, kTheta, Rotation::forward);
  EXPECT_EQ(x.values(), before);
}

TEST(Rope, RejectsAnOddHeadAndARaggedRow) {
  const test::GuardedTensor x(DType::f32, {1, 12}), positions(DType::i32, {1}, {0.0});
  Stream stream = test::make_stream(1);
  EXPECT_THROW(rope(stream, x.tensor(), positions.tensor(), 3, kTheta, Rotation::forward),
               LogicError);
  EXPECT_THROW(rope(stream, x.tensor(), positions.tensor(), 8, kTheta, Rotation::forward),
               LogicError);
}

}  // namespace
}  // namespace jamba

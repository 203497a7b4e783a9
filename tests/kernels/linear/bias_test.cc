#include <gtest/gtest.h>

#include "kernels/linear/matmul.h"
#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Values;

/// y = x + bias, where y starts as a copy of x.
OpCase bias_case(std::int64_t tokens, std::int64_t out, DType dtype, DType bias_dtype) {
  OpCase op;
  op.name = fmt::format("bias {} [{}, {}]", dtype_name(dtype), tokens, out);
  op.inputs = {{.name = "x",
                .dtype = dtype,
                .dims = {tokens, out},
                .values = test::normal_values(tokens * out, 1, "x"),
                .differentiable = false},
               {.name = "bias",
                .dtype = bias_dtype,
                .dims = {out},
                .values = test::normal_values(out, 1, "bias"),
                .gradient_accumulates = true}};
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {tokens, out}}};
  op.reference = [out](const std::vector<Values>& in) {
    Values y = in[0];
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += in[1][i % static_cast<std::size_t>(out)];
    return std::vector<Values>{y};
  };
  op.forward = [](Stream& s, Arena&, auto in, auto result) {
    test::from_doubles(result[0], test::to_doubles(in[0]));
    bias_forward(s, result[0], in[1]);
  };
  op.backward = [](Stream& s, Arena& scratch, auto, auto, auto dout, auto din) {
    bias_backward(s, scratch, din[1], dout[0]);
  };
  return op;
}

TEST(Bias, MatchesReferenceForwardAndBackward) {
  for (const auto& [tokens, out] : {std::pair{1, 1}, {3, 7}, {130, 9}, {65, 33}}) {
    check_op(bias_case(tokens, out, DType::f32, DType::f32));
    check_op(bias_case(tokens, out, DType::bf16, DType::bf16));
    check_op(bias_case(tokens, out, DType::bf16, DType::f32));
  }
}

TEST(Bias, WithoutTokensKeepsItsGradient) {
  const GuardedTensor dy(DType::f32, {0, 3}), dbias(DType::f32, {3}, {1, 2, 3});
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  bias_backward(stream, scratch, dbias.tensor(), dy.tensor());
  EXPECT_EQ(dbias.values(), (std::vector<double>{1, 2, 3}));
}

TEST(Bias, RejectsABiasOfAnotherWidth) {
  const GuardedTensor y(DType::f32, {2, 4}), bias(DType::f32, {3});
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  EXPECT_THROW(bias_forward(stream, y.tensor(), bias.tensor()), LogicError);
  EXPECT_THROW(bias_backward(stream, scratch, bias.tensor(), y.tensor()), LogicError);
}

}  // namespace
}  // namespace jamba

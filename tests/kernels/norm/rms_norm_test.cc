#include "kernels/norm/rms_norm.h"

#include <gtest/gtest.h>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::OpCase;
using test::Scalar;
using test::Values;

constexpr float kEps = 1e-5f;

struct Dims {
  std::int64_t tokens, model;
};

std::vector<Values> reference(const std::vector<Values>& in, const Dims& dims) {
  const Values &x = in[0], &residual = in[1], &w = in[2];
  std::vector<Values> out(3);
  for (std::int64_t t = 0; t < dims.tokens; ++t) {
    Scalar squares = 0;
    for (std::int64_t i = 0; i < dims.model; ++i) {
      const Scalar s = x[t * dims.model + i] + residual[t * dims.model + i];
      out[1].push_back(s);
      squares += s * s;
    }
    const Scalar rstd =
        1.0 / std::sqrt(squares / static_cast<double>(dims.model) + static_cast<double>(kEps));
    out[2].push_back(rstd);
    for (std::int64_t i = 0; i < dims.model; ++i) {
      out[0].push_back(out[1][t * dims.model + i] * rstd * w[i]);
    }
  }
  return out;
}

/// The fused form: y = norm(x + residual), with a gradient that reaches the sum past the norm.
OpCase rms_norm_case(const Dims& dims, DType dtype) {
  const auto [tokens, model] = dims;
  OpCase op;
  op.name = fmt::format("rms_norm {} [{}, {}]", dtype_name(dtype), tokens, model);
  op.inputs = {{.name = "x", .dtype = dtype, .dims = {tokens, model}},
               {.name = "residual", .dtype = dtype, .dims = {tokens, model}},
               {.name = "w", .dtype = dtype, .dims = {model}, .gradient_accumulates = true}};
  for (auto& input : op.inputs) {
    input.values =
        test::normal_values(input.dims.size() == 1 ? model : tokens * model, 1, input.name);
    if (input.name != "w") input.gradient_dtype = dtype;
  }
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {tokens, model}},
                {.name = "sum", .dtype = dtype, .dims = {tokens, model}},
                {.name = "rstd", .dims = {tokens}, .differentiable = false}};
  op.reference = [dims](const std::vector<Values>& in) { return reference(in, dims); };
  op.forward = [](Stream& s, Arena&, auto in, auto out) {
    rms_norm_forward(s, out[0], out[1], out[2], in[0], in[1], in[2], kEps);
  };
  op.ulps_bf16 = 3;  // the sum and the normed row are rounded too, as Hugging Face does it
  op.backward = [](Stream& s, Arena& scratch, auto in, auto out, auto dout, auto din) {
    rms_norm_backward(s, scratch, din[0], din[2], dout[0], dout[1], out[1], out[2], in[2]);
    copy(s, din[1], din[0]);
  };
  return op;
}

TEST(RmsNorm, MatchesReferenceForwardAndBackward) {
  // 514 tokens: a block of the CUDA backward takes more than one row.
  for (const Dims& dims : {Dims{1, 1}, Dims{3, 7}, Dims{33, 24}, Dims{2, 67}, Dims{514, 3}}) {
    check_op(rms_norm_case(dims, DType::f32));
    check_op(rms_norm_case(dims, DType::bf16));
  }
}

TEST(RmsNorm, NormalisesARowOfZerosToZero) {
  const test::GuardedTensor x(DType::f32, {1, 5}, std::vector<double>(5, 0.0));
  const test::GuardedTensor w(DType::f32, {5}, std::vector<double>(5, 2.0));
  const test::GuardedTensor y(DType::f32, {1, 5}), rstd(DType::f32, {1});
  Stream stream = test::make_stream();
  rms_norm_forward(stream, y.tensor(), {}, rstd.tensor(), x.tensor(), {}, w.tensor(), kEps);
  EXPECT_EQ(y.values(), std::vector<double>(5, 0.0));
}

TEST(RmsNorm, RejectsAWeightOfAnotherWidth) {
  const test::GuardedTensor x(DType::f32, {2, 4}), w(DType::f32, {3}), rstd(DType::f32, {2});
  Stream stream = test::make_stream();
  EXPECT_THROW(
      rms_norm_forward(stream, x.tensor(), {}, rstd.tensor(), x.tensor(), {}, w.tensor(), kEps),
      LogicError);
}

}  // namespace
}  // namespace jamba

#include "kernels/mamba/inner_norm.h"

#include <gtest/gtest.h>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Scalar;
using test::Values;

constexpr float kEps = 1e-5f;

struct Dims {
  std::int64_t tokens, dt, state;
  std::int64_t width() const { return dt + 2 * state; }
};

/// Columns [begin, begin + width) of x, normalised if w is not empty; appends y and rstd.
void reference_part(Values& y, Values& rstd, const Values& x, const Values& w, std::int64_t tokens,
                    std::int64_t stride, std::int64_t begin, std::int64_t width) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto row = x.begin() + t * stride + begin;
    Scalar squares = 0;
    for (std::int64_t i = 0; i < width; ++i) squares += row[i] * row[i];
    const Scalar r =
        1.0 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(kEps));
    rstd.push_back(r);
    for (std::int64_t i = 0; i < width; ++i) y.push_back(w.empty() ? row[i] : row[i] * r * w[i]);
  }
}

/// dt, b, c and, with weights, rstd from x, w_dt, w_b, w_c.
std::vector<Values> reference(const std::vector<Values>& in, const Dims& dims) {
  const bool norm = in.size() > 1;
  const std::int64_t begin[] = {0, dims.dt, dims.dt + dims.state};
  std::vector<Values> out(norm ? 4 : 3), rstd(3);
  for (std::size_t i = 0; i < 3; ++i) {
    reference_part(out[i], rstd[i], in[0], norm ? in[i + 1] : Values{}, dims.tokens, dims.width(),
                   begin[i], i == 0 ? dims.dt : dims.state);
  }
  for (std::int64_t t = 0; norm && t < dims.tokens; ++t) {
    for (const Values& part : rstd) out[3].push_back(part[t]);
  }
  return out;
}

OpCase inner_norm_case(const Dims& dims, DType dt_dtype, DType weight_dtype, bool norm) {
  const auto [tokens, dt, state] = dims;
  OpCase op;
  op.name = fmt::format("inner_norm {}/{} [{}, {} + 2 x {}]{}", dtype_name(dt_dtype),
                        dtype_name(weight_dtype), tokens, dt, state, norm ? "" : " without norm");
  const auto values = [](std::int64_t n, const char* name) {
    return test::normal_values(n, 1, name);
  };
  op.inputs = {
      {.name = "x", .dims = {tokens, dims.width()}, .values = values(tokens * dims.width(), "x")}};
  op.outputs = {{.name = "dt", .dtype = dt_dtype, .dims = {tokens, dt}},
                {.name = "b", .dims = {tokens, state}},
                {.name = "c", .dims = {tokens, state}}};
  if (norm) {
    for (const auto& [name, width] : {std::pair{"w_dt", dt}, {"w_b", state}, {"w_c", state}}) {
      op.inputs.push_back({.name = name,
                           .dtype = weight_dtype,
                           .dims = {width},
                           .values = values(width, name),
                           .gradient_accumulates = true});
    }
    op.outputs.push_back({.name = "rstd", .dims = {tokens, 3}, .differentiable = false});
  }
  op.reference = [dims](const std::vector<Values>& in) { return reference(in, dims); };
  const auto at = [](std::span<const Tensor> t, std::size_t i) {
    return i < t.size() ? t[i] : Tensor{};
  };
  op.forward = [at](Stream& s, Arena&, auto in, auto out) {
    inner_norm_forward(s, out[0], out[1], out[2], at(out, 3), in[0], at(in, 1), at(in, 2),
                       at(in, 3), kEps);
  };
  op.backward = [at](Stream& s, Arena& scratch, auto in, auto out, auto dout, auto din) {
    inner_norm_backward(s, scratch, din[0], at(din, 1), at(din, 2), at(din, 3), dout[0], dout[1],
                        dout[2], in[0], at(out, 3), at(in, 1), at(in, 2), at(in, 3));
  };
  return op;
}

TEST(InnerNorm, MatchesReferenceForwardAndBackward) {
  for (const Dims& dims : {Dims{1, 2, 3}, Dims{3, 7, 16}, Dims{5, 17, 4}}) {
    check_op(inner_norm_case(dims, DType::f32, DType::f32, true));
    check_op(inner_norm_case(dims, DType::bf16, DType::f32, true));
    check_op(inner_norm_case(dims, DType::bf16, DType::bf16, true));
  }
}

TEST(InnerNorm, OnlySplitsWithoutWeights) {
  check_op(inner_norm_case({3, 7, 16}, DType::f32, DType::f32, false));
  check_op(inner_norm_case({3, 7, 16}, DType::bf16, DType::f32, false));
}

/// More tokens than one partial sum of the weights' gradients takes.
TEST(InnerNorm, JoinsItsBlocksOfTokens) {
  check_op(inner_norm_case({130, 2, 1}, DType::f32, DType::f32, true));
}

TEST(InnerNorm, AcceptsNoTokens) {
  const GuardedTensor x(DType::f32, {0, 8}), dt(DType::f32, {0, 4}), b(DType::f32, {0, 2});
  const GuardedTensor w_dt(DType::f32, {4}, std::vector(4, 1.0)), rstd(DType::f32, {0, 3});
  const GuardedTensor w(DType::f32, {2}, std::vector(2, 1.0));
  const GuardedTensor dw_dt(DType::f32, {4}, std::vector(4, 7.0));
  const GuardedTensor dw(DType::f32, {2}, std::vector(2, 7.0));
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  inner_norm_forward(stream, dt.tensor(), b.tensor(), b.tensor(), rstd.tensor(), x.tensor(),
                     w_dt.tensor(), w.tensor(), w.tensor(), kEps);
  inner_norm_backward(stream, scratch, x.tensor(), dw_dt.tensor(), dw.tensor(), dw.tensor(),
                      dt.tensor(), b.tensor(), b.tensor(), x.tensor(), rstd.tensor(), w_dt.tensor(),
                      w.tensor(), w.tensor());
  EXPECT_EQ(dw_dt.values(), std::vector(4, 7.0));
}

TEST(InnerNorm, RejectsMismatchedShapes) {
  const GuardedTensor x(DType::f32, {2, 9}), odd(DType::f32, {2, 8}), dt(DType::f32, {2, 5});
  const GuardedTensor b(DType::f32, {2, 2}), c(DType::f32, {2, 3}), w(DType::f32, {5});
  Stream stream = test::make_stream(1);
  const auto run = [&](const GuardedTensor& source, const GuardedTensor& c_out, Tensor w_dt) {
    inner_norm_forward(stream, dt.tensor(), b.tensor(), c_out.tensor(), {}, source.tensor(), w_dt,
                       {}, {}, kEps);
  };
  EXPECT_NO_THROW(run(x, b, {}));
  EXPECT_THROW(run(odd, b, {}), LogicError);
  EXPECT_THROW(run(x, c, {}), LogicError);
  EXPECT_THROW(run(x, b, w.tensor()), LogicError);
}

}  // namespace
}  // namespace jamba

#include "kernels/linear/matmul.h"

#include <gtest/gtest.h>

#include <hwy/targets.h>

#include <limits>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Scalar;
using test::Values;

struct Dims {
  std::int64_t tokens, in, out;
};

// Odd sizes around the edges of vectors, register blocks, and the 256-term blocks of the sums.
const std::vector<Dims> kSmall = {{1, 1, 1},   {5, 7, 3},   {13, 19, 37}, {2, 260, 5},
                                  {7, 34, 16}, {1, 16, 70}, {270, 2, 3}};

/// Reference values in double for products too large for the complex-step driver.
std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b,
                            std::int64_t m, std::int64_t n, std::int64_t k, bool a_k_last,
                            bool b_k_last) {
  std::vector<double> c(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l) {
        sum += a[a_k_last ? i * k + l : l * m + i] * b[b_k_last ? j * k + l : l * n + j];
      }
      c[i * n + j] = sum;
    }
  }
  return c;
}

/// write: of dx.
OpCase linear_case(const Dims& dims, DType dtype, DType result, Write write, bool bias) {
  const auto [tokens, in, out] = dims;
  OpCase op;
  op.name = fmt::format("linear {} -> {} [{}, {}] -> {}{}{}", dtype_name(dtype), dtype_name(result),
                        tokens, in, out, write == Write::accumulate ? ", accumulating" : "",
                        bias ? ", bias" : "");
  op.inputs = {{.name = "x",
                .dtype = dtype,
                .dims = {tokens, in},
                .values = test::normal_values(tokens * in, 1, "x"),
                .gradient_dtype = result},
               {.name = "w",
                .dtype = dtype,
                .dims = {out, in},
                .values = test::normal_values(out * in, 1, "w"),
                .gradient_accumulates = true}};
  op.inputs[0].gradient_accumulates = write == Write::accumulate;
  if (bias) {
    op.inputs.push_back({.name = "bias",
                         .dtype = result,
                         .dims = {out},
                         .values = test::normal_values(out, 1, "bias"),
                         .gradient_accumulates = true});
  }
  op.outputs = {{.name = "y", .dtype = result, .dims = {tokens, out}}};
  op.reference = [dims](const std::vector<Values>& v) {
    Values y(static_cast<std::size_t>(dims.tokens * dims.out));
    for (std::int64_t t = 0; t < dims.tokens; ++t) {
      for (std::int64_t o = 0; o < dims.out; ++o) {
        for (std::int64_t i = 0; i < dims.in; ++i) {
          y[t * dims.out + o] += v[0][t * dims.in + i] * v[1][o * dims.in + i];
        }
        if (v.size() > 2) y[t * dims.out + o] += v[2][o];
      }
    }
    return std::vector<Values>{y};
  };
  op.forward = [bias](Stream& s, Arena& scratch, auto inputs, auto outputs) {
    linear_forward(s, scratch, outputs[0], inputs[0], inputs[1], bias ? inputs[2] : Tensor{});
  };
  // The gradient of y has y's dtype, but a product's inputs agree: hand it over in the inputs' own.
  op.backward = [=](Stream& s, Arena& scratch, auto inputs, auto, auto dout, auto din) {
    Tensor dy = dout[0];
    if (dy.dtype() != dtype) {
      dy = scratch.allocate(dtype, dout[0].dims());
      test::from_doubles(dy, test::to_doubles(dout[0]));
    }
    linear_backward_input(s, scratch, din[0], dy, inputs[1], write);
    linear_backward_weight(s, scratch, din[1], dy, inputs[0]);
    if (bias) bias_backward(s, scratch, din[2], dout[0]);
  };
  return op;
}

TEST(Linear, MatchesReferenceForwardAndBackward) {
  for (const Dims& dims : kSmall) {
    for (const Write write : {Write::overwrite, Write::accumulate}) {
      for (const bool bias : {false, true}) {
        check_op(linear_case(dims, DType::f32, DType::f32, write, bias));
        check_op(linear_case(dims, DType::bf16, DType::bf16, write, bias));
        check_op(linear_case(dims, DType::bf16, DType::f32, write, bias));
      }
    }
  }
}

/// All three products at once, with the result's dtype for y and dx. Where they accumulate, y has
/// a bias.
struct Results {
  std::vector<double> y, dx, dw;
  bool intact = true;
};

struct Operands {
  GuardedTensor x, w, dy;
  Operands(const Dims& d, DType dtype)
      : x(dtype, {d.tokens, d.in}, test::normal_values(d.tokens * d.in, 2, "x")),
        w(dtype, {d.out, d.in}, test::normal_values(d.out * d.in, 2, "w")),
        dy(dtype, {d.tokens, d.out}, test::normal_values(d.tokens * d.out, 2, "dy")) {}
};

Results run(const Operands& in, const Dims& d, DType result, Write write, int threads) {
  Stream stream = test::make_stream(threads);
  Arena scratch(test::device());
  const auto filled = [&](DType dtype, std::int64_t rows, std::int64_t cols, const char* name) {
    return write == Write::overwrite
               ? GuardedTensor(dtype, {rows, cols})
               : GuardedTensor(dtype, {rows, cols}, test::normal_values(rows * cols, 3, name));
  };
  const GuardedTensor y(result, {d.tokens, d.out});
  const GuardedTensor bias = filled(result, 1, d.out, "bias");
  const GuardedTensor dx = filled(result, d.tokens, d.in, "dx");
  const GuardedTensor dw = filled(DType::f32, d.out, d.in, "dw");
  linear_forward(stream, scratch, y.tensor(), in.x.tensor(), in.w.tensor(),
                 write == Write::accumulate ? bias.tensor().view({d.out}) : Tensor{});
  linear_backward_input(stream, scratch, dx.tensor(), in.dy.tensor(), in.w.tensor(), write);
  linear_backward_weight(stream, scratch, dw.tensor(), in.dy.tensor(), in.x.tensor(), write);
  return {y.values(), dx.values(), dw.values(),
          y.guards_intact() && dx.guards_intact() && dw.guards_intact()};
}

/// before: what the result was added to; a row of it stands for all rows.
void expect_close(const std::vector<double>& got, std::vector<double> want,
                  const std::vector<double>& before, double bound, const std::string& what) {
  if (!before.empty()) {
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += before[i % before.size()];
  }
  const double error = test::worst_error(got, want);
  EXPECT_TRUE(error <= bound) << what << " off by " << error;
}

// Several tiles in each direction and several blocks of each sum, against sums in double.
TEST(Linear, LargeProductsMatchReference) {
  for (const Dims& d : {Dims{300, 600, 290}, Dims{530, 257, 300}, Dims{6, 1100, 513}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Operands in(d, dtype);
      const auto x = in.x.values(), w = in.w.values(), dy = in.dy.values();
      const auto y = product(x, w, d.tokens, d.out, d.in, true, true);
      const auto dx = product(dy, w, d.tokens, d.in, d.out, true, false);
      const auto dw = product(dy, x, d.out, d.in, d.tokens, false, false);
      for (const DType result : {DType::f32, dtype}) {
        for (const Write write : {Write::overwrite, Write::accumulate}) {
          const auto before = [&](std::int64_t n, DType t, const char* name) {
            return write == Write::overwrite
                       ? std::vector<double>()
                       : GuardedTensor(t, {n}, test::normal_values(n, 3, name)).values();
          };
          const Results got = run(in, d, result, write, 2);
          // One rounding to bfloat16 is at most 2^-9 relative; worst_error halves it or better.
          const double bound = result == DType::f32 ? 4e-6 : 3.95e-3;
          const std::string what = fmt::format("[{}, {}, {}] {} -> {}", d.tokens, d.in, d.out,
                                               dtype_name(dtype), dtype_name(result));
          EXPECT_TRUE(got.intact) << what;
          expect_close(got.y, y, before(d.out, result, "bias"), bound, what + " y");
          expect_close(got.dx, dx, before(d.tokens * d.in, result, "dx"), bound, what + " dx");
          expect_close(got.dw, dw, before(d.out * d.in, DType::f32, "dw"), 4e-6, what + " dw");
        }
      }
    }
  }
}

// The packing and the kernel depend on the width of a vector: run every one that this machine has.
TEST(Linear, MatchesReferenceWithEveryInstructionSet) {
  if (test::on_cuda()) GTEST_SKIP() << "about CPUs";
  const Dims d{130, 530, 77};
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::GetChosenTarget().Update(target);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Operands in(d, dtype);
      const auto x = in.x.values(), w = in.w.values(), dy = in.dy.values();
      const Results got = run(in, d, DType::f32, Write::overwrite, 2);
      const std::string what = hwy::TargetName(target);
      EXPECT_TRUE(got.intact) << what;
      expect_close(got.y, product(x, w, d.tokens, d.out, d.in, true, true), {}, 4e-6, what);
      expect_close(got.dx, product(dy, w, d.tokens, d.in, d.out, true, false), {}, 4e-6, what);
      expect_close(got.dw, product(dy, x, d.out, d.in, d.tokens, false, false), {}, 4e-6, what);
    }
  }
  hwy::GetChosenTarget().DeInit();  // back to the best one
}

TEST(Linear, GivesTheSameBitsForAnyNumberOfThreads) {
  for (const Dims& d : {Dims{300, 600, 290}, Dims{1, 700, 900}, Dims{129, 512, 64}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Operands in(d, dtype);
      const Results one = run(in, d, dtype, Write::accumulate, 1);
      for (const int threads : {1, 2, 3, 5}) {
        const Results many = run(in, d, dtype, Write::accumulate, threads);
        EXPECT_EQ(one.y, many.y) << threads;
        EXPECT_EQ(one.dx, many.dx) << threads;
        EXPECT_EQ(one.dw, many.dw) << threads;
      }
    }
  }
}

// What a batch is cut into must not matter: a decoded token equals its row of the prefill.
TEST(Linear, ARowDoesNotDependOnTheOtherRows) {
  if (test::on_cuda()) GTEST_SKIP() << "cuBLASLt promises no such thing";
  const Dims d{67, 600, 150};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Operands in(d, dtype);
    const Results all = run(in, d, dtype, Write::overwrite, 2);
    Stream stream = test::make_stream(2);
    Arena scratch(test::device());
    for (const std::int64_t begin : {std::int64_t{0}, std::int64_t{40}}) {
      for (const std::int64_t rows : {1, 2, 5, 7, 27}) {
        const GuardedTensor y(dtype, {rows, d.out});
        linear_forward(stream, scratch, y.tensor(), in.x.tensor().slice(begin, rows),
                       in.w.tensor());
        const auto at = all.y.begin() + begin * d.out;
        EXPECT_EQ(y.values(), std::vector<double>(at, at + rows * d.out));
      }
    }
  }
}

TEST(Linear, WithoutTokensZeroesOrKeepsTheWeightGradient) {
  const Dims d{0, 5, 3};
  const Operands in(d, DType::f32);
  EXPECT_EQ(run(in, d, DType::f32, Write::overwrite, 2).dw, std::vector<double>(15, 0.0));
  EXPECT_EQ(run(in, d, DType::f32, Write::accumulate, 2).dw,
            GuardedTensor(DType::f32, {15}, test::normal_values(15, 3, "dw")).values());
  EXPECT_TRUE(run(in, d, DType::f32, Write::overwrite, 2).y.empty());
}

// Layers of a model have products of the same shapes.
TEST(Linear, AddsTheBiasOfEachCall) {
  const GuardedTensor x(DType::f32, {1, 2}, {1, 1}), w(DType::f32, {3, 2}, {0, 0, 1, 1, 2, 2});
  const GuardedTensor a(DType::f32, {3}, {10, 20, 30}), b(DType::f32, {3}, {1, 2, 3});
  const GuardedTensor y(DType::f32, {1, 3});
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  linear_forward(stream, scratch, y.tensor(), x.tensor(), w.tensor(), a.tensor());
  EXPECT_EQ(y.values(), (std::vector<double>{10, 22, 34}));
  linear_forward(stream, scratch, y.tensor(), x.tensor(), w.tensor(), b.tensor());
  EXPECT_EQ(y.values(), (std::vector<double>{1, 4, 7}));
  linear_forward(stream, scratch, y.tensor(), x.tensor(), w.tensor());
  EXPECT_EQ(y.values(), (std::vector<double>{0, 2, 4}));
}

TEST(Linear, WithoutTokensKeepsTheBiasGradient) {
  const GuardedTensor dy(DType::f32, {0, 3}), dbias(DType::f32, {3}, {1, 2, 3});
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  bias_backward(stream, scratch, dbias.tensor(), dy.tensor());
  EXPECT_EQ(dbias.values(), (std::vector<double>{1, 2, 3}));
}

TEST(Linear, CarriesNaNAndInfinity) {
  const Dims d{2, 300, 40};
  const Operands in(d, DType::f32);
  std::vector<double> x = in.x.values();
  x[5] = std::numeric_limits<double>::quiet_NaN();
  x[305] = std::numeric_limits<double>::infinity();
  test::from_doubles(in.x.tensor(), x);
  for (const double y : run(in, d, DType::f32, Write::overwrite, 2).y) {
    EXPECT_FALSE(std::isfinite(y));
  }
}

TEST(Linear, CountsItsFlops) {
  const Dims d{3, 5, 7};
  const Operands in(d, DType::f32);
  const GuardedTensor y(DType::f32, {3, 7});
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  linear_forward(stream, scratch, y.tensor(), in.x.tensor(), in.w.tensor());
  EXPECT_EQ(stream.profile().matmul_flops, 2.0 * 3 * 5 * 7);
  EXPECT_GT(stream.profile()[Part::matmul], 0.0);
}

TEST(Linear, RejectsShapesAndDtypesThatDisagree) {
  const GuardedTensor x(DType::f32, {2, 4}), w(DType::f32, {3, 4}), y(DType::f32, {2, 3});
  const GuardedTensor wide(DType::f32, {3, 5}), half(DType::bf16, {2, 3}), xh(DType::bf16, {2, 4});
  Stream s = test::make_stream(1);
  Arena scratch(test::device());
  EXPECT_THROW(linear_forward(s, scratch, y.tensor(), x.tensor(), wide.tensor()), LogicError);
  EXPECT_THROW(linear_forward(s, scratch, y.tensor(), xh.tensor(), w.tensor()), LogicError);
  EXPECT_THROW(linear_forward(s, scratch, half.tensor(), x.tensor(), w.tensor()), LogicError);
  const GuardedTensor narrow(DType::f32, {2}), half_bias(DType::bf16, {3});
  for (const GuardedTensor* bias : {&narrow, &half_bias})
    EXPECT_THROW(linear_forward(s, scratch, y.tensor(), x.tensor(), w.tensor(), bias->tensor()),
                 LogicError);
  EXPECT_THROW(bias_backward(s, scratch, narrow.tensor(), y.tensor()), LogicError);
  EXPECT_THROW(linear_backward_input(s, scratch, x.tensor(), x.tensor(), w.tensor()), LogicError);
  EXPECT_THROW(linear_backward_weight(s, scratch, wide.tensor(), y.tensor(), x.tensor()),
               LogicError);
  EXPECT_THROW(linear_backward_weight(s, scratch, half.tensor(), y.tensor(), x.tensor()),
               LogicError);
}

}  // namespace
}  // namespace jamba

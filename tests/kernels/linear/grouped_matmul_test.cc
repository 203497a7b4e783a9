#include "kernels/linear/grouped_matmul.h"

#include <gtest/gtest.h>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Values;
using Offsets = std::vector<std::int64_t>;

struct Dims {
  std::int64_t in, out;
  Offsets offsets;

  std::int64_t experts() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t rows() const { return offsets.back(); }
};

OpCase grouped_case(const Dims& d, DType dtype) {
  OpCase op;
  op.name = fmt::format("grouped linear {} [{}] {} -> {}", dtype_name(dtype),
                        fmt::join(d.offsets, ", "), d.in, d.out);
  op.inputs = {{.name = "x",
                .dtype = dtype,
                .dims = {d.rows(), d.in},
                .values = test::normal_values(d.rows() * d.in, 1, "x"),
                .gradient_dtype = dtype},
               {.name = "w",
                .dtype = dtype,
                .dims = {d.experts(), d.out, d.in},
                .values = test::normal_values(d.experts() * d.out * d.in, 1, "w"),
                .gradient_accumulates = true}};
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {d.rows(), d.out}}};
  op.reference = [d](const std::vector<Values>& v) {
    Values y(static_cast<std::size_t>(d.rows() * d.out));
    for (std::int64_t e = 0; e < d.experts(); ++e) {
      for (std::int64_t t = d.offsets[e]; t < d.offsets[e + 1]; ++t) {
        for (std::int64_t o = 0; o < d.out; ++o) {
          for (std::int64_t i = 0; i < d.in; ++i) {
            y[t * d.out + o] += v[0][t * d.in + i] * v[1][(e * d.out + o) * d.in + i];
          }
        }
      }
    }
    return std::vector<Values>{y};
  };
  op.forward = [d](Stream& s, Arena& scratch, auto in, auto out) {
    grouped_linear_forward(s, scratch, out[0], in[0], in[1], d.offsets);
  };
  op.backward = [d](Stream& s, Arena& scratch, auto in, auto, auto dout, auto din) {
    grouped_linear_backward_input(s, scratch, din[0], dout[0], in[1], d.offsets);
    grouped_linear_backward_weight(s, scratch, din[1], dout[0], in[0], d.offsets);
  };
  return op;
}

TEST(GroupedLinear, MatchesReferenceForwardAndBackward) {
  const std::vector<Dims> cases = {{5, 3, {0, 2, 7}},
                                   {7, 19, {0, 0, 3, 3, 7, 7}},  // experts without rows
                                   {6, 4, {0, 0, 9, 9}},         // all rows in one expert
                                   {3, 5, {0, 1}}};
  for (const Dims& d : cases) {
    check_op(grouped_case(d, DType::f32));
    check_op(grouped_case(d, DType::bf16));
  }
}

// Experts of several tiles, uneven: each must equal the plain layer on its rows, bit for bit.
TEST(GroupedLinear, EachExpertIsAPlainLinearLayer) {
  const Dims d{130, 530, {0, 70, 70, 700, 703}};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const GuardedTensor x(dtype, {d.rows(), d.in}, test::normal_values(d.rows() * d.in, 1, "x"));
    const GuardedTensor dy(dtype, {d.rows(), d.out},
                           test::normal_values(d.rows() * d.out, 1, "dy"));
    const GuardedTensor w(dtype, {d.experts(), d.out, d.in},
                          test::normal_values(d.experts() * d.out * d.in, 1, "w"));
    const GuardedTensor y(dtype, {d.rows(), d.out}), dx(dtype, {d.rows(), d.in});
    const GuardedTensor dw(DType::f32, {d.experts(), d.out, d.in});
    Stream stream = test::make_stream(3);
    Arena scratch(test::device());
    grouped_linear_forward(stream, scratch, y.tensor(), x.tensor(), w.tensor(), d.offsets);
    grouped_linear_backward_input(stream, scratch, dx.tensor(), dy.tensor(), w.tensor(), d.offsets);
    grouped_linear_backward_weight(stream, scratch, dw.tensor(), dy.tensor(), x.tensor(), d.offsets,
                                   Write::overwrite);
    for (std::int64_t e = 0; e < d.experts(); ++e) {
      const std::int64_t begin = d.offsets[e], rows = d.offsets[e + 1] - begin;
      const Tensor we = w.tensor().slice(e, 1).view({d.out, d.in});
      const GuardedTensor want_y(dtype, {rows, d.out}), want_dx(dtype, {rows, d.in});
      const GuardedTensor want_dw(DType::f32, {d.out, d.in});
      const Tensor xe = x.tensor().slice(begin, rows), dye = dy.tensor().slice(begin, rows);
      linear_forward(stream, scratch, want_y.tensor(), xe, we);
      linear_backward_input(stream, scratch, want_dx.tensor(), dye, we);
      linear_backward_weight(stream, scratch, want_dw.tensor(), dye, xe, Write::overwrite);
      EXPECT_EQ(test::to_doubles(y.tensor().slice(begin, rows)), want_y.values()) << e;
      EXPECT_EQ(test::to_doubles(dx.tensor().slice(begin, rows)), want_dx.values()) << e;
      EXPECT_EQ(test::to_doubles(dw.tensor().slice(e, 1)), want_dw.values()) << e;
    }
    EXPECT_TRUE(y.guards_intact() && dx.guards_intact() && dw.guards_intact());
  }
}

TEST(GroupedLinear, WithoutRowsZeroesOrKeepsTheWeightGradient) {
  const Offsets offsets{0, 0, 0};
  const GuardedTensor x(DType::bf16, {0, 4}), dy(DType::bf16, {0, 3});
  const GuardedTensor dw(DType::f32, {2, 3, 4}, std::vector<double>(24, 2.5));
  const GuardedTensor w(DType::bf16, {2, 3, 4}, std::vector<double>(24, 1.0));
  Stream stream = test::make_stream(2);
  Arena scratch(test::device());
  grouped_linear_forward(stream, scratch, dy.tensor(), x.tensor(), w.tensor(), offsets);
  grouped_linear_backward_input(stream, scratch, x.tensor(), dy.tensor(), w.tensor(), offsets);
  grouped_linear_backward_weight(stream, scratch, dw.tensor(), dy.tensor(), x.tensor(), offsets);
  EXPECT_EQ(dw.values(), std::vector<double>(24, 2.5));
  grouped_linear_backward_weight(stream, scratch, dw.tensor(), dy.tensor(), x.tensor(), offsets,
                                 Write::overwrite);
  EXPECT_EQ(dw.values(), std::vector<double>(24, 0.0));
}

TEST(GroupedLinear, RejectsOffsetsThatDoNotCutTheRows) {
  const GuardedTensor x(DType::f32, {4, 2}), w(DType::f32, {2, 3, 2}), y(DType::f32, {4, 3});
  Stream s = test::make_stream(1);
  Arena scratch(test::device());
  for (const Offsets& bad :
       {Offsets{0, 4}, Offsets{0, 2, 3}, Offsets{1, 2, 4}, Offsets{0, 5, 4}, Offsets{}}) {
    EXPECT_THROW(grouped_linear_forward(s, scratch, y.tensor(), x.tensor(), w.tensor(), bad),
                 LogicError);
  }
}

}  // namespace
}  // namespace jamba

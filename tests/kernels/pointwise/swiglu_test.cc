#include "kernels/pointwise/swiglu.h"

#include <gtest/gtest.h>

#include "tests/support/op_case.h"
#include "tests/support/tensors.h"

namespace jamba {
namespace {

using test::GuardedTensor;
using test::OpCase;
using test::Values;

struct Dims {
  std::int64_t rows, ffn;
};

struct Variant {
  bool in_place = false, scaled = false;
};

OpCase swiglu_case(const Dims& d, DType dtype, Variant variant) {
  OpCase op;
  op.name = fmt::format("swiglu {} [{}, {}]{}{}", dtype_name(dtype), d.rows, d.ffn,
                        variant.in_place ? " in place" : "", variant.scaled ? " scaled" : "");
  op.inputs = {{.name = "gate_up",
                .dtype = dtype,
                .dims = {d.rows, 2 * d.ffn},
                .values = test::normal_values(d.rows * 2 * d.ffn, 1, "gate_up", 2.0),
                .gradient_dtype = dtype}};
  if (variant.scaled) {
    op.inputs.push_back({.name = "row_scale",
                         .dims = {d.rows},
                         .values = test::normal_values(d.rows, 1, "row_scale")});
  }
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {d.rows, d.ffn}}};
  op.reference = [d, variant](const std::vector<Values>& in) {
    Values y;
    for (std::int64_t r = 0; r < d.rows; ++r) {
      for (std::int64_t i = 0; i < d.ffn; ++i) {
        const test::Scalar gate = in[0][r * 2 * d.ffn + i], up = in[0][(r * 2 + 1) * d.ffn + i];
        const test::Scalar scale = variant.scaled ? in[1][r] : test::Scalar(1);
        y.push_back(scale * gate / (1.0 + std::exp(-gate)) * up);
      }
    }
    return std::vector<Values>{y};
  };
  op.forward = [variant](Stream& s, Arena&, auto in, auto out) {
    swiglu_forward(s, out[0], in[0], variant.scaled ? in[1] : Tensor{});
  };
  op.backward = [variant](Stream& s, Arena&, auto in, auto out, auto dout, auto din) {
    const GuardedTensor y(out[0].dtype(), {out[0].dim(0), out[0].dim(1)});
    const Tensor row_scale = variant.scaled ? in[1] : Tensor{};
    const Tensor drow_scale = variant.scaled ? din[1] : Tensor{};
    if (!variant.in_place) {
      swiglu_backward(s, din[0], y.tensor(), drow_scale, dout[0], in[0], row_scale);
    } else {
      copy(s, din[0], in[0]);
      copy(s, y.tensor(), dout[0]);
      swiglu_backward(s, din[0], y.tensor(), drow_scale, y.tensor(), din[0], row_scale);
    }
    EXPECT_TRUE(y.guards_intact());
    EXPECT_EQ(y.values(), test::to_doubles(out[0]));
  };
  return op;
}

TEST(SwiGlu, MatchesReferenceForwardAndBackward) {
  for (const Dims& d : {Dims{1, 1}, Dims{3, 7}, Dims{5, 24}, Dims{2, 67}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const bool scaled : {false, true}) {
        check_op(swiglu_case(d, dtype, {.in_place = false, .scaled = scaled}));
        check_op(swiglu_case(d, dtype, {.in_place = true, .scaled = scaled}));
      }
    }
  }
}

TEST(SwiGlu, StaysFiniteForGatesThatSaturate) {
  const GuardedTensor gate_up(DType::f32, {1, 8}, {-1e4, -100, 100, 1e4, 2, 2, 2, 2});
  const GuardedTensor dy(DType::f32, {1, 4}, {1, 1, 1, 1});
  const GuardedTensor y(DType::f32, {1, 4}), dgate_up(DType::f32, {1, 8});
  Stream stream = test::make_stream(1);
  swiglu_forward(stream, y.tensor(), gate_up.tensor());
  swiglu_backward(stream, dgate_up.tensor(), y.tensor(), {}, dy.tensor(), gate_up.tensor(), {});
  const std::vector<double> want = {0, 0, 200, 2e4}, want_gradient = {0, 0, 2, 2, 0, 0, 100, 1e4};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(y.values()[i], want[i], 1e-30 + 1e-6 * want[i]);
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(dgate_up.values()[i], want_gradient[i], 1e-30 + 1e-6 * want_gradient[i]);
  }
}

/// A weight of 0 silences the row, but the weight itself still learns.
TEST(SwiGlu, GivesAScaleOfZeroItsGradient) {
  const GuardedTensor gate_up(DType::f32, {2, 6}, test::normal_values(12, 1, "gate_up"));
  const GuardedTensor scale(DType::f32, {2}, {0, 1}), dscale(DType::f32, {2});
  const GuardedTensor dy(DType::f32, {2, 3}, {1, 1, 1, 1, 1, 1});
  const GuardedTensor y(DType::f32, {2, 3}), plain(DType::f32, {2, 3}),
      dgate_up(DType::f32, {2, 6});
  Stream stream = test::make_stream(1);
  swiglu_forward(stream, plain.tensor(), gate_up.tensor());
  swiglu_backward(stream, dgate_up.tensor(), y.tensor(), dscale.tensor(), dy.tensor(),
                  gate_up.tensor(), scale.tensor());
  const std::vector<double> v = plain.values();
  EXPECT_TRUE(test::worst_error(dscale.values(), {v[0] + v[1] + v[2], v[3] + v[4] + v[5]}) <= 1e-6);
  EXPECT_EQ(y.values(), (std::vector<double>{0, 0, 0, v[3], v[4], v[5]}));
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(dgate_up.values()[i], 0);
}

TEST(SwiGlu, AcceptsNoRows) {
  const GuardedTensor gate_up(DType::bf16, {0, 6}), y(DType::bf16, {0, 3}), scale(DType::f32, {0});
  Stream stream = test::make_stream(2);
  swiglu_forward(stream, y.tensor(), gate_up.tensor(), scale.tensor());
  swiglu_backward(stream, gate_up.tensor(), y.tensor(), scale.tensor(), y.tensor(),
                  gate_up.tensor(), scale.tensor());
  EXPECT_TRUE(y.guards_intact() && gate_up.guards_intact());
}

TEST(SwiGlu, RejectsWhatDoesNotFit) {
  const GuardedTensor gate_up(DType::f32, {2, 6}), y(DType::f32, {2, 3}),
      narrow(DType::f32, {2, 4});
  const GuardedTensor scale(DType::f32, {2}), long_scale(DType::f32, {3});
  const GuardedTensor half_scale(DType::bf16, {2});
  Stream stream = test::make_stream(1);
  const auto forward = [&](const GuardedTensor& in, Tensor row_scale) {
    swiglu_forward(stream, y.tensor(), in.tensor(), row_scale);
  };
  const auto backward = [&](const GuardedTensor& in, Tensor drow_scale, Tensor row_scale) {
    swiglu_backward(stream, in.tensor(), y.tensor(), drow_scale, y.tensor(), in.tensor(),
                    row_scale);
  };
  EXPECT_THROW(forward(narrow, {}), LogicError);
  EXPECT_THROW(forward(gate_up, long_scale.tensor()), LogicError);
  EXPECT_THROW(forward(gate_up, half_scale.tensor()), LogicError);
  EXPECT_THROW(backward(narrow, {}, {}), LogicError);
  EXPECT_THROW(backward(gate_up, long_scale.tensor(), scale.tensor()), LogicError);
  EXPECT_THROW(backward(gate_up, {}, scale.tensor()), LogicError);
  EXPECT_THROW(backward(gate_up, scale.tensor(), {}), LogicError);
}

}  // namespace
}  // namespace jamba

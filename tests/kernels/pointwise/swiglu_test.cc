#include "kernels/pointwise/swiglu.h"

#include <gtest/gtest.h>

#include <cstring>

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

OpCase swiglu_case(const Dims& d, DType dtype, bool in_place) {
  OpCase op;
  op.name = fmt::format("swiglu {} [{}, {}]", dtype_name(dtype), d.rows, d.ffn);
  op.inputs = {{.name = "gate_up",
                .dtype = dtype,
                .dims = {d.rows, 2 * d.ffn},
                .values = test::normal_values(d.rows * 2 * d.ffn, 1, "gate_up", 2.0),
                .gradient_dtype = dtype}};
  op.outputs = {{.name = "y", .dtype = dtype, .dims = {d.rows, d.ffn}}};
  op.reference = [d](const std::vector<Values>& in) {
    Values y;
    for (std::int64_t r = 0; r < d.rows; ++r) {
      for (std::int64_t i = 0; i < d.ffn; ++i) {
        const test::Scalar gate = in[0][r * 2 * d.ffn + i], up = in[0][(r * 2 + 1) * d.ffn + i];
        y.push_back(gate / (1.0 + std::exp(-gate)) * up);
      }
    }
    return std::vector<Values>{y};
  };
  op.forward = [](Stream& s, Arena&, auto in, auto out) { swiglu_forward(s, out[0], in[0]); };
  op.backward = [in_place](Stream& s, Arena&, auto in, auto out, auto dout, auto din) {
    const GuardedTensor y(out[0].dtype(), {out[0].dim(0), out[0].dim(1)});
    if (!in_place) {
      swiglu_backward(s, din[0], y.tensor(), dout[0], in[0]);
    } else {
      std::memcpy(din[0].raw(), in[0].raw(), static_cast<std::size_t>(in[0].bytes()));
      std::memcpy(y.tensor().raw(), dout[0].raw(), static_cast<std::size_t>(dout[0].bytes()));
      swiglu_backward(s, din[0], y.tensor(), y.tensor(), din[0]);
    }
    EXPECT_TRUE(y.guards_intact());
    EXPECT_EQ(y.values(), test::to_doubles(out[0]));
  };
  return op;
}

TEST(SwiGlu, MatchesReferenceForwardAndBackward) {
  for (const Dims& d : {Dims{1, 1}, Dims{3, 7}, Dims{5, 24}, Dims{2, 67}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      check_op(swiglu_case(d, dtype, false));
      check_op(swiglu_case(d, dtype, true));
    }
  }
}

TEST(SwiGlu, StaysFiniteForGatesThatSaturate) {
  const GuardedTensor gate_up(DType::f32, {1, 8}, {-1e4, -100, 100, 1e4, 2, 2, 2, 2});
  const GuardedTensor dy(DType::f32, {1, 4}, {1, 1, 1, 1});
  const GuardedTensor y(DType::f32, {1, 4}), dgate_up(DType::f32, {1, 8});
  Stream stream = Stream::cpu(1);
  swiglu_forward(stream, y.tensor(), gate_up.tensor());
  swiglu_backward(stream, dgate_up.tensor(), y.tensor(), dy.tensor(), gate_up.tensor());
  const std::vector<double> want = {0, 0, 200, 2e4}, want_gradient = {0, 0, 2, 2, 0, 0, 100, 1e4};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(y.values()[i], want[i], 1e-30 + 1e-6 * want[i]);
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(dgate_up.values()[i], want_gradient[i], 1e-30 + 1e-6 * want_gradient[i]);
  }
}

TEST(SwiGlu, AcceptsNoRows) {
  const GuardedTensor gate_up(DType::bf16, {0, 6}), y(DType::bf16, {0, 3});
  Stream stream = Stream::cpu(2);
  swiglu_forward(stream, y.tensor(), gate_up.tensor());
  swiglu_backward(stream, gate_up.tensor(), y.tensor(), y.tensor(), gate_up.tensor());
  EXPECT_TRUE(y.guards_intact() && gate_up.guards_intact());
}

TEST(SwiGlu, RejectsAGateOfAnotherWidth) {
  const GuardedTensor gate_up(DType::f32, {2, 4}), y(DType::f32, {2, 3});
  Stream stream = Stream::cpu(1);
  EXPECT_THROW(swiglu_forward(stream, y.tensor(), gate_up.tensor()), LogicError);
  EXPECT_THROW(swiglu_backward(stream, gate_up.tensor(), y.tensor(), y.tensor(), gate_up.tensor()),
               LogicError);
}

}  // namespace
}  // namespace jamba

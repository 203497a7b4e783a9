#include "kernels/mamba/selective_scan.h"

#include <gtest/gtest.h>

#include <memory>

#include "tests/kernels/mamba/scan_fixture.h"
#include "tests/support/op_case.h"

namespace jamba {
namespace {

using test::OpCase;
using test::ScanDims;
using test::Values;

test::ScanInputs<test::Scalar> as_scan_inputs(const std::vector<Values>& in) {
  test::ScanInputs<test::Scalar> out{.u = in[0],
                                     .delta = in[1],
                                     .z = in[2],
                                     .b = in[3],
                                     .c = in[4],
                                     .delta_bias = in[5],
                                     .d = in[6],
                                     .a_log = in[7],
                                     .h0 = in[8],
                                     .doc_start = {}};
  for (const test::Scalar& s : in[9]) {
    out.doc_start.push_back(static_cast<std::int64_t>(s.real()));
  }
  return out;
}

// Backward's out has y's rounding to bfloat16 in it, forward's does not: 2^-9, and 2^-9 again.
void expect_out_again(Tensor again, Tensor out) {
  const std::vector<double> got = test::to_doubles(again), want = test::to_doubles(out);
  if (out.dtype() == DType::f32) {
    EXPECT_EQ(got, want);
    return;
  }
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], std::abs(want[i]) / 128);
}

/// All inputs present; documents start at steps 2 and 3 of every sequence.
OpCase scan_case(const ScanDims& dims, DType dtype) {
  const auto [batch, seq, inner, state] = dims;
  OpCase op;
  op.name = fmt::format("selective_scan {} [{}, {}, {}] x {}", dtype_name(dtype), batch, seq, inner,
                        state);
  const test::ScanInputs<double> in = test::random_scan_inputs(dims, 5);
  const auto starts = test::document_starts(dims, {2, 3});
  op.inputs = {{.name = "u", .dtype = dtype, .dims = {batch, seq, inner}, .values = in.u},
               {.name = "delta", .dtype = dtype, .dims = {batch, seq, inner}, .values = in.delta},
               {.name = "z", .dtype = dtype, .dims = {batch, seq, inner}, .values = in.z},
               {.name = "b", .dims = {batch, seq, state}, .values = in.b},
               {.name = "c", .dims = {batch, seq, state}, .values = in.c},
               {.name = "delta_bias", .dims = {inner}, .values = in.delta_bias},
               {.name = "d", .dims = {inner}, .values = in.d},
               {.name = "a_log", .dims = {inner, state}, .values = in.a_log},
               {.name = "h0",
                .dims = {batch, inner, state},
                .values = test::normal_values(dims.states(), 5, "h0")},
               {.name = "doc_start",
                .dtype = DType::i32,
                .dims = {batch, seq},
                .values = std::vector<double>(starts.begin(), starts.end()),
                .differentiable = false}};
  for (int i = 0; i < 3; ++i) op.inputs[i].gradient_dtype = dtype;
  for (int i = 5; i < 8; ++i) op.inputs[i].gradient_accumulates = true;
  op.outputs = {{.name = "out", .dtype = dtype, .dims = {batch, seq, inner}},
                {.name = "h_last", .dims = {batch, inner, state}}};
  op.reference = [dims](const std::vector<Values>& v) {
    auto result = scan_reference(dims, as_scan_inputs(v));
    return std::vector<Values>{result.out, result.h_last};
  };
  const auto inputs = [](std::span<const Tensor> t) {
    return SelectiveScanInputs{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9]};
  };
  const auto states = std::make_shared<test::GuardedTensor>(
      DType::u8, std::vector{scan_states_bytes(batch, seq, inner, state)});
  const auto y = std::make_shared<test::GuardedTensor>(dtype, std::vector{batch, seq, inner});
  const SelectiveScanSaved saved{states->tensor(), y->tensor()};
  op.forward = [=](Stream& s, Arena& scratch, auto t, auto out) {
    selective_scan_forward(s, scratch, out[0], out[1], saved, inputs(t));
    EXPECT_TRUE(states->guards_intact() && y->guards_intact());
  };
  op.backward = [=](Stream& s, Arena& scratch, auto t, auto out, auto dout, auto g) {
    const test::GuardedTensor again(dtype, {batch, seq, inner});
    selective_scan_backward(s, scratch, {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8]},
                            again.tensor(), dout[0], dout[1], saved, inputs(t));
    EXPECT_TRUE(again.guards_intact());
    expect_out_again(again.tensor(), out[0]);
  };
  return op;
}

TEST(SelectiveScan, BackwardMayWriteOutOverDout) {
  const ScanDims dims{2, 70, 19, 5};
  const test::Scan scan(dims, test::random_scan_inputs(dims, 1));
  Stream stream = test::make_stream(2);
  Arena scratch(test::device());
  const test::GuardedTensor out(DType::f32, {2, 70, 19}), again(DType::f32, {2, 70, 19});
  const test::GuardedTensor dout(DType::f32, {2, 70, 19},
                                 test::normal_values(2 * 70 * 19, 2, "dout"));
  selective_scan_forward(stream, scratch, out.tensor(), {}, scan.saved(), scan.inputs());
  const auto backward = [&](Tensor written) {
    selective_scan_backward(stream, scratch, scan.gradients(), written, dout.tensor(), {},
                            scan.saved(), scan.inputs());
    const SelectiveScanGradients g = scan.gradients();
    std::vector<std::vector<double>> overwritten;
    for (const Tensor& t : {g.du, g.ddelta, g.dz, g.db, g.dc}) {
      overwritten.push_back(test::to_doubles(t));
    }
    return overwritten;
  };
  const auto apart = backward(again.tensor());
  EXPECT_EQ(backward(dout.tensor()), apart);
  EXPECT_EQ(again.values(), out.values());
  EXPECT_EQ(dout.values(), out.values());
}

TEST(SelectiveScan, MatchesReferenceAndComplexStep) {
  for (const ScanDims& dims :
       {ScanDims{1, 1, 1, 1}, ScanDims{2, 5, 3, 4}, ScanDims{1, 7, 17, 5}, ScanDims{3, 3, 9, 3}}) {
    check_op(scan_case(dims, DType::f32));
    check_op(scan_case(dims, DType::bf16));
  }
}

TEST(SelectiveScan, RejectsWrongShapes) {
  const ScanDims dims{1, 3, 5, 2};
  const test::Scan scan(dims, test::random_scan_inputs(dims, 1));
  const test::GuardedTensor out(DType::f32, {1, 3, 5}), other(DType::f32, {1, 3, 4});
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  const auto run = [&](auto change) {
    SelectiveScanInputs in = scan.inputs();
    SelectiveScanSaved saved = scan.saved();
    change(in, saved);
    selective_scan_forward(stream, scratch, out.tensor(), {}, saved, in);
  };
  const auto wrong = [&](Tensor SelectiveScanInputs::*field) {
    EXPECT_THROW(run([&](auto& in, auto&) { in.*field = other.tensor(); }), LogicError);
  };
  EXPECT_NO_THROW(run([](auto&, auto&) {}));
  for (const auto field :
       {&SelectiveScanInputs::delta, &SelectiveScanInputs::z, &SelectiveScanInputs::c,
        &SelectiveScanInputs::delta_bias, &SelectiveScanInputs::d, &SelectiveScanInputs::a_log,
        &SelectiveScanInputs::h0, &SelectiveScanInputs::doc_start}) {
    wrong(field);
  }
  EXPECT_THROW(run([](auto&, auto& saved) { saved.y = {}; }), LogicError);
  EXPECT_THROW(run([](auto&, auto& saved) { saved.states = saved.states.slice(0, 8); }),
               LogicError);
}

TEST(SelectiveScan, CountsTheBytesOfItsStates) {
  // Two chunks of 64 steps, two blocks of 16 channels.
  EXPECT_EQ(scan_states_bytes(3, 65, 17, 5), 3 * 2 * 2 * 16 * 5 * 4);
  EXPECT_EQ(scan_states_bytes(3, 0, 17, 5), 0);
}

}  // namespace
}  // namespace jamba

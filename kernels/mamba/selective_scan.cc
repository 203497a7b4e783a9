#include "kernels/mamba/selective_scan.h"

#include "kernels/core/dispatch.h"
#include "kernels/mamba/selective_scan_plan.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(selective_scan_forward);
JAMBA_DECLARE_BACKENDS(selective_scan_backward);

std::int64_t scan_states_bytes(std::int64_t batch, std::int64_t seq, std::int64_t inner,
                               std::int64_t state) {
  const ScanPlan plan{batch, seq, inner, state};
  return batch * plan.chunks() * plan.state_floats() * dtype_bytes(DType::f32);
}

namespace {

void check_range(const ScanPlan& plan) {
  const std::int64_t begin = plan.range.begin, end = plan.end_channel();
  JAMBA_CHECK(begin >= 0 && begin <= end && end <= plan.inner && begin % kScanGroup == 0 &&
                  (end % kScanGroup == 0 || end == plan.inner),
              "channels [{}, {}) of {}: a range ends at multiples of {}", begin, end, plan.inner,
              kScanGroup);
}

ScanPlan check_inputs(const SelectiveScanInputs& in, ChannelRange range) {
  expect_float_tensor("u", in.u, {-1, -1, -1});
  expect_tensor("b", in.b, DType::f32, {in.u.dim(0), in.u.dim(1), -1});
  const ScanPlan plan = ScanPlan::of(in, range);
  check_range(plan);
  JAMBA_CHECK(plan.state >= 1, "b: no state dim in {}", in.b.describe());
  for (const auto& [name, t] : {std::pair{"delta", in.delta}, {"z", in.z}}) {
    expect_tensor(name, t, in.u.dtype(), {plan.batch, plan.seq, plan.inner});
  }
  expect_tensor("c", in.c, DType::f32, {plan.batch, plan.seq, plan.state});
  expect_tensor("delta_bias", in.delta_bias, DType::f32, {plan.inner});
  expect_tensor("d", in.d, DType::f32, {plan.inner});
  expect_tensor("a_log", in.a_log, DType::f32, {plan.inner, plan.state});
  if (in.h0.present()) {
    expect_tensor("h0", in.h0, DType::f32, {plan.batch, plan.inner, plan.state});
  }
  if (in.doc_start.present()) {
    expect_tensor("doc_start", in.doc_start, DType::i32, {plan.batch, plan.seq});
  }
  return plan;
}

void check_saved(const SelectiveScanSaved& saved, const ScanPlan& plan, DType dtype) {
  const std::int64_t bytes = scan_states_bytes(plan.batch, plan.seq, plan.inner, plan.state);
  JAMBA_CHECK(saved.states.present() && saved.states.bytes() >= bytes,
              "saved.states: expected {} bytes, got {}", bytes, saved.states.describe());
  expect_tensor("saved.y", saved.y, dtype, {plan.batch, plan.seq, plan.inner});
}

}  // namespace

void selective_scan_forward(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
                            const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                            ChannelRange range) {
  const ScanPlan plan = check_inputs(in, range);
  expect_tensor("out", out, in.u.dtype(), {plan.batch, plan.seq, plan.inner});
  if (h_last.present()) {
    expect_tensor("h_last", h_last, DType::f32, {plan.batch, plan.inner, plan.state});
  }
  JAMBA_CHECK(saved.states.present() == saved.y.present(), "saved.states and saved.y go together");
  if (saved.y.present()) check_saved(saved, plan, in.u.dtype());
  ProfileScope scope(stream.profile(), Part::scan);
  JAMBA_DISPATCH(selective_scan_forward, stream, scratch, out, h_last, saved, in, range);
}

void selective_scan_backward(Stream& stream, Arena& scratch,
                             const SelectiveScanGradients& gradients, Tensor out, Tensor dout,
                             Tensor dh_last, const SelectiveScanSaved& saved,
                             const SelectiveScanInputs& in, ChannelRange range, Write write_bc) {
  const ScanPlan plan = check_inputs(in, range);
  check_saved(saved, plan, in.u.dtype());
  for (const auto& [name, t] : {std::pair{"du", gradients.du},
                                {"ddelta", gradients.ddelta},
                                {"dz", gradients.dz},
                                {"out", out},
                                {"dout", dout}}) {
    expect_tensor(name, t, in.u.dtype(), {plan.batch, plan.seq, plan.inner});
  }
  for (const auto& [name, t] : {std::pair{"db", gradients.db}, {"dc", gradients.dc}}) {
    expect_tensor(name, t, DType::f32, {plan.batch, plan.seq, plan.state});
  }
  expect_tensor("ddelta_bias", gradients.ddelta_bias, DType::f32, {plan.inner});
  expect_tensor("dd", gradients.dd, DType::f32, {plan.inner});
  expect_tensor("da_log", gradients.da_log, DType::f32, {plan.inner, plan.state});
  for (const auto& [name, t] : {std::pair{"dh_last", dh_last}, {"dh0", gradients.dh0}}) {
    if (t.present()) expect_tensor(name, t, DType::f32, {plan.batch, plan.inner, plan.state});
  }
  ProfileScope scope(stream.profile(), Part::scan);
  JAMBA_DISPATCH(selective_scan_backward, stream, scratch, gradients, out, dout, dh_last, saved, in,
                 range, write_bc);
}

}  // namespace jamba

#include "kernels/mamba/causal_conv1d.h"

#include "kernels/core/dispatch.h"
#include "kernels/mamba/causal_conv1d_plan.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(causal_conv1d_forward);
JAMBA_DECLARE_BACKENDS(causal_conv1d_backward);

namespace {

void check_inputs(const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& doc_start,
                  const Tensor& history) {
  expect_float_tensor("x", x, {-1, -1, -1});
  const std::int64_t batch = x.dim(0), seq = x.dim(1), inner = x.dim(2);
  expect_float_tensor("w", w, {inner, -1});
  const std::int64_t taps = w.dim(1);
  JAMBA_CHECK(taps >= 1 && taps <= kMaxConvTaps, "w: {} taps, expected 1 to {}", taps,
              kMaxConvTaps);
  if (bias.present()) expect_tensor("bias", bias, w.dtype(), {inner});
  if (doc_start.present()) expect_tensor("doc_start", doc_start, DType::i32, {batch, seq});
  if (history.present()) expect_tensor("history", history, x.dtype(), {batch, taps - 1, inner});
}

}  // namespace

void causal_conv1d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, Tensor bias,
                           Tensor doc_start, Tensor history) {
  check_inputs(x, w, bias, doc_start, history);
  expect_tensor("y", y, x.dtype(), {x.dim(0), x.dim(1), x.dim(2)});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(causal_conv1d_forward, stream, y, x, w, bias, doc_start, history);
}

void causal_conv1d_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw, Tensor dbias,
                            Tensor dhistory, Tensor dy, Tensor x, Tensor w, Tensor bias,
                            Tensor doc_start, Tensor history) {
  check_inputs(x, w, bias, doc_start, history);
  const std::int64_t batch = x.dim(0), seq = x.dim(1), inner = x.dim(2), taps = w.dim(1);
  expect_tensor("dx", dx, x.dtype(), {batch, seq, inner});
  expect_tensor("dy", dy, x.dtype(), {batch, seq, inner});
  expect_tensor("dw", dw, DType::f32, {inner, taps});
  JAMBA_CHECK(dbias.present() == bias.present(), "dbias and bias come together");
  if (dbias.present()) expect_tensor("dbias", dbias, DType::f32, {inner});
  if (dhistory.present()) expect_tensor("dhistory", dhistory, x.dtype(), {batch, taps - 1, inner});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(causal_conv1d_backward, stream, scratch, dx, dw, dbias, dhistory, dy, x, w, bias,
                 doc_start, history);
}

}  // namespace jamba

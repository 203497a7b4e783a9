#include "kernels/mamba/inner_norm.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(inner_norm_forward);
JAMBA_DECLARE_BACKENDS(inner_norm_backward);

namespace {

struct Widths {
  std::int64_t tokens, dt, state;
};

Widths check_inputs(const Tensor& x, std::int64_t dt_width, const Tensor& rstd, const Tensor& w_dt,
                    const Tensor& w_b, const Tensor& w_c) {
  expect_tensor("x", x, DType::f32, {-1, -1});
  const std::int64_t rest = x.dim(1) - dt_width;
  JAMBA_CHECK(rest >= 0 && rest % 2 == 0, "x has {} columns, dt {}: B and C cannot share the rest",
              x.dim(1), dt_width);
  const Widths widths{x.dim(0), dt_width, rest / 2};
  const bool norm = w_dt.present();
  JAMBA_CHECK(w_b.present() == norm && w_c.present() == norm && rstd.present() == norm,
              "w_dt, w_b, w_c and rstd come together");
  if (norm) {
    expect_float_tensor("w_dt", w_dt, {widths.dt});
    expect_tensor("w_b", w_b, w_dt.dtype(), {widths.state});
    expect_tensor("w_c", w_c, w_dt.dtype(), {widths.state});
    expect_tensor("rstd", rstd, DType::f32, {widths.tokens, 3});
  }
  return widths;
}

}  // namespace

void inner_norm_forward(Stream& stream, Tensor dt, Tensor b, Tensor c, Tensor rstd, Tensor x,
                        Tensor w_dt, Tensor w_b, Tensor w_c, float eps) {
  expect_float_tensor("dt", dt, {-1, -1});
  const Widths widths = check_inputs(x, dt.dim(1), rstd, w_dt, w_b, w_c);
  expect_float_tensor("dt", dt, {widths.tokens, widths.dt});
  expect_tensor("b", b, DType::f32, {widths.tokens, widths.state});
  expect_tensor("c", c, DType::f32, {widths.tokens, widths.state});
  JAMBA_CHECK(eps >= 0, "eps {}", eps);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(inner_norm_forward, stream, dt, b, c, rstd, x, w_dt, w_b, w_c, eps);
}

void inner_norm_backward(Stream& stream, Arena& scratch, Tensor dx, Tensor dw_dt, Tensor dw_b,
                         Tensor dw_c, Tensor d_dt, Tensor d_b, Tensor d_c, Tensor x, Tensor rstd,
                         Tensor w_dt, Tensor w_b, Tensor w_c) {
  expect_float_tensor("d_dt", d_dt, {-1, -1});
  const Widths widths = check_inputs(x, d_dt.dim(1), rstd, w_dt, w_b, w_c);
  expect_tensor("dx", dx, DType::f32, {widths.tokens, x.dim(1)});
  expect_float_tensor("d_dt", d_dt, {widths.tokens, widths.dt});
  expect_tensor("d_b", d_b, DType::f32, {widths.tokens, widths.state});
  expect_tensor("d_c", d_c, DType::f32, {widths.tokens, widths.state});
  const bool norm = w_dt.present();
  JAMBA_CHECK(dw_dt.present() == norm && dw_b.present() == norm && dw_c.present() == norm,
              "weights and their gradients come together");
  if (norm) {
    expect_tensor("dw_dt", dw_dt, DType::f32, {widths.dt});
    expect_tensor("dw_b", dw_b, DType::f32, {widths.state});
    expect_tensor("dw_c", dw_c, DType::f32, {widths.state});
  }
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(inner_norm_backward, stream, scratch, dx, dw_dt, dw_b, dw_c, d_dt, d_b, d_c, x,
                 rstd, w_dt, w_b, w_c);
}

}  // namespace jamba

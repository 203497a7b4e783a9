#include "kernels/linear/grouped_matmul.h"

#include "kernels/core/dispatch.h"
#include "kernels/linear/expect_result.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(grouped_linear_forward);
JAMBA_DECLARE_BACKENDS(grouped_linear_backward_input);
JAMBA_DECLARE_BACKENDS(grouped_linear_backward_weight);

namespace {

void expect_offsets(std::span<const std::int64_t> offsets, std::int64_t experts,
                    std::int64_t rows) {
  JAMBA_CHECK(static_cast<std::int64_t>(offsets.size()) == experts + 1,
              "{} offsets for {} experts; expected one more than experts", offsets.size(), experts);
  JAMBA_CHECK(offsets.front() == 0 && offsets.back() == rows,
              "offsets run from {} to {}; expected 0 to the number of rows, {}", offsets.front(),
              offsets.back(), rows);
  for (std::size_t e = 1; e < offsets.size(); ++e) {
    JAMBA_CHECK(offsets[e - 1] <= offsets[e], "offsets descend at expert {}: {} after {}", e - 1,
                offsets[e], offsets[e - 1]);
  }
}

double flops(std::int64_t rows, const Tensor& w) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(w.dim(1) * w.dim(2));
}

}  // namespace

void grouped_linear_forward(Stream& stream, Arena& scratch, Tensor y, Tensor x, Tensor w,
                            std::span<const std::int64_t> offsets) {
  expect_float_tensor("w", w, {-1, -1, -1});
  expect_tensor("x", x, w.dtype(), {-1, w.dim(2)});
  expect_result("y", y, w.dtype(), {x.dim(0), w.dim(1)});
  expect_offsets(offsets, w.dim(0), x.dim(0));
  ProfileScope scope(stream.profile(), Part::matmul);
  stream.profile().matmul_flops += flops(x.dim(0), w);
  JAMBA_DISPATCH(grouped_linear_forward, stream, scratch, y, x, w, offsets);
}

void grouped_linear_backward_input(Stream& stream, Arena& scratch, Tensor dx, Tensor dy, Tensor w,
                                   std::span<const std::int64_t> offsets) {
  expect_float_tensor("w", w, {-1, -1, -1});
  expect_tensor("dy", dy, w.dtype(), {-1, w.dim(1)});
  expect_result("dx", dx, w.dtype(), {dy.dim(0), w.dim(2)});
  expect_offsets(offsets, w.dim(0), dy.dim(0));
  ProfileScope scope(stream.profile(), Part::matmul);
  stream.profile().matmul_flops += flops(dy.dim(0), w);
  JAMBA_DISPATCH(grouped_linear_backward_input, stream, scratch, dx, dy, w, offsets);
}

void grouped_linear_backward_weight(Stream& stream, Arena& scratch, Tensor dw, Tensor dy, Tensor x,
                                    std::span<const std::int64_t> offsets, Write write) {
  expect_tensor("dw", dw, DType::f32, {-1, -1, -1});
  expect_float_tensor("dy", dy, {-1, dw.dim(1)});
  expect_tensor("x", x, dy.dtype(), {dy.dim(0), dw.dim(2)});
  expect_offsets(offsets, dw.dim(0), x.dim(0));
  ProfileScope scope(stream.profile(), Part::matmul);
  stream.profile().matmul_flops += flops(dy.dim(0), dw);
  JAMBA_DISPATCH(grouped_linear_backward_weight, stream, scratch, dw, dy, x, offsets, write);
}

}  // namespace jamba

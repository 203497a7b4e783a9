#include "kernels/attention/rope.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(rope);

void rope(Stream& stream, Tensor x, Tensor positions, std::int64_t head_dim, double theta,
          Rotation rotation) {
  expect_float_tensor("x", x, {-1, -1});
  expect_tensor("positions", positions, DType::i32, {x.rows()});
  JAMBA_CHECK(head_dim > 0 && head_dim % 2 == 0, "head_dim {} must be even", head_dim);
  JAMBA_CHECK(x.cols() % head_dim == 0, "{} columns are no multiple of head_dim {}", x.cols(),
              head_dim);
  JAMBA_CHECK(theta > 0, "theta {}", theta);
  ProfileScope scope(stream.profile(), Part::attention);
  JAMBA_DISPATCH(rope, stream, x, positions, head_dim, theta, rotation);
}

}  // namespace jamba

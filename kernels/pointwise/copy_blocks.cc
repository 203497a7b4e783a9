#include "kernels/pointwise/copy_blocks.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(copy_blocks);

namespace {

void check_inside(const char* what, const Tensor& t, const BlockLayout& layout,
                  const BlockCount& count) {
  const std::int64_t last = layout.begin + (count.outer - 1) * layout.outer_stride +
                            (count.inner - 1) * layout.inner_stride + count.width;
  JAMBA_CHECK(layout.begin >= 0 && layout.outer_stride >= 0 && layout.inner_stride >= 0 &&
                  last <= t.numel(),
              "{}: blocks reach to element {} of {}", what, last, t.describe());
}

}  // namespace

void copy_blocks(Stream& stream, Tensor out, const BlockLayout& out_layout, Tensor x,
                 const BlockLayout& x_layout, const BlockCount& count, Write write) {
  JAMBA_CHECK(out.present() && x.present() && out.dtype() == x.dtype(), "out {}, x {}",
              out.describe(), x.describe());
  if (count.outer <= 0 || count.inner <= 0 || count.width <= 0) return;
  check_inside("out", out, out_layout, count);
  check_inside("x", x, x_layout, count);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(copy_blocks, stream, out, out_layout, x, x_layout, count, write);
}

}  // namespace jamba

#include <cstring>

#include "kernels/core/parallel.h"
#include "kernels/pointwise/copy_blocks.h"

namespace jamba::cpu {

void copy_blocks(Stream& stream, Tensor out, const BlockLayout& out_layout, Tensor x,
                 const BlockLayout& x_layout, const BlockCount& count, Write write) {
  constexpr std::int64_t kElementsPerTask = 16384;
  const std::int64_t blocks_per_task = std::max<std::int64_t>(1, kElementsPerTask / count.width);
  const auto for_each = [&](auto&& body) {
    parallel_blocks(stream, count.outer * count.inner, blocks_per_task,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t b = begin; b < end; ++b) {
                        const std::int64_t i = b / count.inner, j = b % count.inner;
                        const auto place = [&](const BlockLayout& layout) {
                          return layout.begin + i * layout.outer_stride + j * layout.inner_stride;
                        };
                        body(place(out_layout), place(x_layout));
                      }
                    });
  };
  if (write == Write::overwrite) {
    const std::int64_t element = dtype_bytes(x.dtype());
    for_each([&](std::int64_t to, std::int64_t from) {
      std::memcpy(static_cast<char*>(out.raw()) + to * element,
                  static_cast<const char*>(x.raw()) + from * element,
                  static_cast<std::size_t>(count.width * element));
    });
    return;
  }
  visit_float(x.dtype(), [&]<class T>(T) {
    for_each([&](std::int64_t to, std::int64_t from) {
      T* sum = out.ptr<T>() + to;
      const T* term = x.ptr<T>() + from;
      for (std::int64_t e = 0; e < count.width; ++e) {
        sum[e] = T(static_cast<float>(sum[e]) + static_cast<float>(term[e]));
      }
    });
  });
}

}  // namespace jamba::cpu

#include "kernels/embedding/embedding.h"

#include <cstring>

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embedding/embedding_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

template <class T>
void add_row(float* to, const T* from, std::int64_t n) {
  for_lanes(n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    store_n(hn::Add(load_n(to + i, count), load_n(from + i, count)), to + i, count);
  });
}

/// Threads own columns: every element of dtable sums its tokens in order, however the columns are
/// split, and a token that fills the whole batch is no one's bottleneck.
void backward(Stream& stream, Tensor dtable, Tensor dy, Tensor ids, std::int64_t padding_id) {
  constexpr std::int64_t kCacheLine = kAlignment / sizeof(float);
  const std::int64_t tokens = dy.rows(), model = dy.cols();
  const std::int64_t share = (model + stream.num_threads() - 1) / stream.num_threads();
  const std::int64_t width = (share + kCacheLine - 1) / kCacheLine * kCacheLine;
  const std::int32_t* id = ids.ptr<std::int32_t>();
  visit_float(dy.dtype(), [&]<class T>(T) {
    const T* gradients = dy.ptr<T>();
    float* rows = dtable.ptr<float>();
    parallel_blocks(stream, model, width, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        if (id[t] == padding_id) continue;
        add_row(rows + id[t] * model + begin, gradients + t * model + begin, end - begin);
      }
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace jamba::cpu {

HWY_EXPORT(backward);

namespace {

void check_ids(Tensor ids, std::int64_t vocab) {
  const std::int32_t* id = ids.ptr<std::int32_t>();
  for (std::int64_t t = 0; t < ids.numel(); ++t) {
    JAMBA_CHECK(id[t] >= 0 && id[t] < vocab, "id {} of token {} is outside the vocabulary of {}",
                id[t], t, vocab);
  }
}

}  // namespace

void embedding_forward(Stream& stream, Tensor y, Tensor ids, Tensor table) {
  constexpr std::int64_t kTokenBlock = 32;
  check_ids(ids, table.dim(0));
  const std::int64_t row_bytes = table.cols() * dtype_bytes(table.dtype());
  const std::int32_t* id = ids.ptr<std::int32_t>();
  const char* from = static_cast<const char*>(table.raw());
  char* to = static_cast<char*>(y.raw());
  parallel_blocks(stream, ids.numel(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      std::memcpy(to + t * row_bytes, from + id[t] * row_bytes,
                  static_cast<std::size_t>(row_bytes));
    }
  });
}

void embedding_backward(Stream& stream, Tensor dtable, Tensor dy, Tensor ids,
                        std::int64_t padding_id) {
  check_ids(ids, dtable.dim(0));
  HWY_DYNAMIC_DISPATCH(backward)(stream, dtable, dy, ids, padding_id);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

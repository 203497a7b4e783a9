#include "kernels/embedding/embedding.h"

#include <cstring>

#include "kernels/core/parallel.h"
#include "kernels/embedding/token_chains.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embedding/embedding_cpu.cc"
#include <hwy/foreach_target.h>

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {
namespace {

enum class Into { replace, add };

template <Into kInto, class T>
void put_row(float* to, const T* from, std::int64_t n) {
  for_lanes(n, [&](std::int64_t i, std::int64_t count) HWY_ATTR {
    VF value = load_n(from + i, count);
    if constexpr (kInto == Into::add) value = hn::Add(load_n(to + i, count), value);
    store_n(value, to + i, count);
  });
}

/// Threads own columns: every element of dtable sums its tokens in order, however the columns are
/// split, and a token that fills the whole batch is no one's bottleneck.
void backward(Stream& stream, Tensor dtable, Tensor dy, Tensor ids, std::int64_t first_id,
              const TokenChains& chains, float* sum) {
  constexpr std::int64_t kCacheLine = kAlignment / sizeof(float);
  const std::int64_t tokens = dy.rows(), model = dy.cols();
  const std::int64_t share = (model + stream.num_threads() - 1) / stream.num_threads();
  const std::int64_t width = (share + kCacheLine - 1) / kCacheLine * kCacheLine;
  const std::int32_t* id = ids.ptr<std::int32_t>();
  visit_float(dy.dtype(), [&]<class T>(T) {
    const T* gradients = dy.ptr<T>();
    float* rows = dtable.ptr<float>();
    parallel_blocks(stream, model, width, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t n = end - begin;
      for (std::int64_t t = 0; t < tokens; ++t) {
        if (chains.last[t] < 0) continue;
        float* row = rows + (id[t] - first_id) * model + begin;
        const T* first = gradients + t * model + begin;
        if (chains.next[t] < 0) {
          put_row<Into::add>(row, first, n);
          continue;
        }
        put_row<Into::replace>(sum + begin, first, n);
        for (std::int64_t i = chains.next[t]; i >= 0; i = chains.next[i]) {
          put_row<Into::add>(sum + begin, gradients + i * model + begin, n);
        }
        put_row<Into::add>(row, sum + begin, n);
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

void embedding_forward(Stream& stream, Tensor y, Tensor ids, Tensor table, std::int64_t first_id,
                       std::int64_t vocab_size) {
  constexpr std::int64_t kTokenBlock = 32;
  check_ids(ids, vocab_size);
  const std::int64_t row_bytes = table.cols() * dtype_bytes(table.dtype());
  const std::int32_t* id = ids.ptr<std::int32_t>();
  const char* from = static_cast<const char*>(table.raw());
  char* to = static_cast<char*>(y.raw());
  parallel_blocks(stream, ids.numel(), kTokenBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t row = id[t] - first_id;
      if (row >= 0 && row < table.dim(0)) {
        std::memcpy(to + t * row_bytes, from + row * row_bytes,
                    static_cast<std::size_t>(row_bytes));
      } else {
        std::memset(to + t * row_bytes, 0, static_cast<std::size_t>(row_bytes));
      }
    }
  });
}

void embedding_backward(Stream& stream, Arena& scratch, Tensor dtable, Tensor dy, Tensor ids,
                        std::int64_t first_id, std::int64_t vocab_size, std::int64_t padding_id) {
  check_ids(ids, vocab_size);
  ArenaScope scope(scratch);
  const TokenChains chains(scratch, ids, first_id, dtable.dim(0), padding_id);
  float* sum = scratch.allocate(DType::f32, {dtable.cols()}).ptr<float>();
  HWY_DYNAMIC_DISPATCH(backward)(stream, dtable, dy, ids, first_id, chains, sum);
}

}  // namespace jamba::cpu
#endif  // HWY_ONCE

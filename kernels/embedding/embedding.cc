#include "kernels/embedding/embedding.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(embedding_forward);
JAMBA_DECLARE_BACKENDS(embedding_backward);

namespace {

void expect_rows_inside(const Tensor& table, std::int64_t first_id, std::int64_t vocab_size) {
  JAMBA_CHECK(first_id >= 0 && first_id + table.dim(0) <= vocab_size,
              "{} rows from {} on of a vocabulary of {}", table.dim(0), first_id, vocab_size);
}

}  // namespace

void embedding_forward(Stream& stream, Tensor y, Tensor ids, Tensor table, std::int64_t first_id,
                       std::int64_t vocab_size) {
  expect_tensor("ids", ids, DType::i32, {-1});
  expect_float_tensor("table", table, {-1, -1});
  expect_tensor("y", y, table.dtype(), {ids.numel(), table.cols()});
  expect_rows_inside(table, first_id, vocab_size);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(embedding_forward, stream, y, ids, table, first_id, vocab_size);
}

void embedding_backward(Stream& stream, Arena& scratch, Tensor dtable, Tensor dy, Tensor ids,
                        std::int64_t first_id, std::int64_t vocab_size, std::int64_t padding_id) {
  expect_tensor("ids", ids, DType::i32, {-1});
  expect_tensor("dtable", dtable, DType::f32, {-1, -1});
  expect_float_tensor("dy", dy, {ids.numel(), dtable.cols()});
  expect_rows_inside(dtable, first_id, vocab_size);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(embedding_backward, stream, scratch, dtable, dy, ids, first_id, vocab_size,
                 padding_id);
}

}  // namespace jamba

#include "kernels/embedding/embedding.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(embedding_forward);
JAMBA_DECLARE_BACKENDS(embedding_backward);

void embedding_forward(Stream& stream, Tensor y, Tensor ids, Tensor table) {
  expect_tensor("ids", ids, DType::i32, {-1});
  expect_float_tensor("table", table, {-1, -1});
  expect_tensor("y", y, table.dtype(), {ids.numel(), table.cols()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(embedding_forward, stream, y, ids, table);
}

void embedding_backward(Stream& stream, Tensor dtable, Tensor dy, Tensor ids,
                        std::int64_t padding_id) {
  expect_tensor("ids", ids, DType::i32, {-1});
  expect_tensor("dtable", dtable, DType::f32, {-1, -1});
  expect_float_tensor("dy", dy, {ids.numel(), dtable.cols()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(embedding_backward, stream, dtable, dy, ids, padding_id);
}

}  // namespace jamba

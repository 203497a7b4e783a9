#include "kernels/moe/balance_loss.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(balance_loss);

void balance_loss(Stream& stream, Tensor aux, Tensor dprobs, Tensor prob_sum, Tensor counts,
                  std::int64_t tokens_per_group, BalancePooling pooling, float scale) {
  const std::int64_t layers = counts.dim(0), groups = counts.dim(1), experts = counts.dim(2);
  expect_tensor("aux", aux, DType::f32,
                {pooling == BalancePooling::all_layers ? 1 : layers, groups});
  expect_tensor("dprobs", dprobs, DType::f32, {layers, groups, experts});
  expect_tensor("prob_sum", prob_sum, DType::f32, {layers, groups, experts});
  expect_tensor("counts", counts, DType::i64, {layers, groups, experts});
  JAMBA_CHECK(tokens_per_group > 0, "tokens_per_group {}", tokens_per_group);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(balance_loss, stream, aux, dprobs, prob_sum, counts, tokens_per_group, pooling,
                 scale);
}

}  // namespace jamba

#include "kernels/moe/router.h"

#include "kernels/core/dispatch.h"

namespace jamba {

JAMBA_DECLARE_BACKENDS(router_forward);
JAMBA_DECLARE_BACKENDS(balance_routing);
JAMBA_DECLARE_BACKENDS(router_backward);
JAMBA_DECLARE_BACKENDS(router_statistics);
JAMBA_DECLARE_BACKENDS(router_jitter);

void router_forward(Stream& stream, Tensor probs, Tensor index, Tensor weight, Tensor logits,
                    bool renormalize) {
  expect_tensor("logits", logits, DType::f32, {-1, -1});
  const std::int64_t tokens = logits.rows(), experts = logits.cols();
  expect_tensor("probs", probs, DType::f32, {tokens, experts});
  expect_tensor("index", index, DType::i32, {tokens, -1});
  const std::int64_t k = index.cols();
  JAMBA_CHECK(k >= 1 && k <= experts, "top-k of {} out of {} experts", k, experts);
  expect_tensor("weight", weight, DType::f32, {tokens, k});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(router_forward, stream, probs, index, weight, logits, renormalize);
}

void balance_routing(Stream& stream, Tensor index, Tensor weight, Tensor probs,
                     std::int64_t first_row, bool renormalize) {
  expect_tensor("probs", probs, DType::f32, {-1, -1});
  expect_tensor("index", index, DType::i32, {probs.rows(), -1});
  expect_tensor("weight", weight, DType::f32, {probs.rows(), index.cols()});
  JAMBA_CHECK(index.cols() <= probs.cols() && first_row >= 0, "top-k of {}, first row {}",
              index.cols(), first_row);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(balance_routing, stream, index, weight, probs, first_row, renormalize);
}

void router_backward(Stream& stream, Tensor dlogits, Tensor dweight, Tensor dprobs, Tensor probs,
                     Tensor index, Tensor logits, bool renormalize, float z_scale) {
  expect_tensor("logits", logits, DType::f32, {-1, -1});
  const std::int64_t tokens = logits.rows(), experts = logits.cols();
  expect_tensor("dlogits", dlogits, DType::f32, {tokens, experts});
  expect_tensor("probs", probs, DType::f32, {tokens, experts});
  if (dprobs.present()) expect_tensor("dprobs", dprobs, DType::f32, {experts});
  expect_tensor("index", index, DType::i32, {tokens, -1});
  expect_tensor("dweight", dweight, DType::f32, {tokens, index.cols()});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(router_backward, stream, dlogits, dweight, dprobs, probs, index, logits,
                 renormalize, z_scale);
}

void router_statistics(Stream& stream, Arena& scratch, Tensor prob_sum, Tensor counts, Tensor z_sum,
                       Tensor probs, Tensor index, Tensor logits) {
  expect_tensor("logits", logits, DType::f32, {-1, -1});
  const std::int64_t tokens = logits.rows(), experts = logits.cols();
  expect_tensor("probs", probs, DType::f32, {tokens, experts});
  expect_tensor("index", index, DType::i32, {tokens, -1});
  expect_tensor("prob_sum", prob_sum, DType::f32, {experts});
  expect_tensor("counts", counts, DType::i64, {experts});
  expect_tensor("z_sum", z_sum, DType::f32, {1});
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(router_statistics, stream, scratch, prob_sum, counts, z_sum, probs, index, logits);
}

void router_jitter(Stream& stream, Tensor logits, float amount, std::uint64_t seed,
                   std::uint64_t rng_stream, std::int64_t first_row) {
  expect_tensor("logits", logits, DType::f32, {-1, -1});
  JAMBA_CHECK(amount >= 0 && amount < 1, "jitter of {} is outside [0, 1)", amount);
  JAMBA_CHECK(first_row >= 0, "first row {}", first_row);
  ProfileScope scope(stream.profile(), Part::rest);
  JAMBA_DISPATCH(router_jitter, stream, logits, amount, seed, rng_stream, first_row);
}

}  // namespace jamba

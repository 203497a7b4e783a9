#include "trainer/model/lm_head.h"

#include <algorithm>

#include "kernels/loss/cross_entropy.h"
#include "kernels/norm/rms_norm.h"

namespace jamba {

namespace {

/// Logits that exist at once, but always enough rows to keep the matrix product at its full speed.
constexpr std::int64_t kMaxLogits = std::int64_t{1} << 22;
constexpr std::int64_t kMinRows = 256;

/// loss and lse of one chunk's logits.
void token_losses(const Context& ctx, Tensor loss, Tensor lse, Tensor logits, Tensor labels) {
  ArenaScope scope(ctx.scratch);
  const std::int64_t tokens = logits.rows();
  const Tensor stats = ctx.temporary(DType::f32, {tokens, kCrossEntropyStats});
  cross_entropy_forward(ctx.stream, stats, logits, labels, 0, logits.cols());
  cross_entropy_combine(ctx.stream, loss, lse, stats.view({1, tokens, kCrossEntropyStats}), labels);
}

}  // namespace

LmHead::LmHead(const ModelConfig& c, const Parameters& p)
    : vocab_size_(c.vocab_size),
      eps_(static_cast<float>(c.rms_norm_eps)),
      norm_(p.weight("model.final_layernorm.weight")),
      projection_(
          p.weight(c.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight")) {}

std::int64_t LmHead::chunk_tokens(std::int64_t tokens) const {
  const std::int64_t most = std::max(kMaxLogits / vocab_size_, kMinRows);
  const std::int64_t num_chunks = (tokens + most - 1) / most;
  return num_chunks == 0 ? 1 : (tokens + num_chunks - 1) / num_chunks;
}

void LmHead::norm(const Context& ctx, Tensor normed, Tensor rstd, Tensor x) const {
  rms_norm_forward(ctx.stream, normed, {}, rstd, x, {}, norm_.value, eps_);
}

void LmHead::logits(const Context& ctx, Tensor logits, Tensor normed, Tensor x) const {
  ArenaScope scope(ctx.scratch);
  norm(ctx, normed, ctx.temporary(DType::f32, {x.rows()}), x);
  linear_forward(ctx.stream, logits, normed, projection_.value);
}

void LmHead::loss(const Context& ctx, Tensor loss, Tensor x, Tensor labels) const {
  const std::int64_t tokens = x.rows(), chunk = chunk_tokens(tokens);
  ArenaScope scope(ctx.scratch);
  const Tensor normed = ctx.scratch.allocate(x.dtype(), x.dims());
  const Tensor logits = ctx.temporary(x.dtype(), {chunk, vocab_size_});
  const Tensor lse = ctx.temporary(DType::f32, {tokens});
  norm(ctx, normed, ctx.temporary(DType::f32, {tokens}), x);
  for (std::int64_t t = 0; t < tokens; t += chunk) {
    const std::int64_t n = std::min(chunk, tokens - t);
    linear_forward(ctx.stream, logits.slice(0, n), normed.slice(t, n), projection_.value);
    token_losses(ctx, loss.slice(t, n), lse.slice(t, n), logits.slice(0, n), labels.slice(t, n));
  }
}

void LmHead::loss_and_gradient(const Context& ctx, Tensor loss, Tensor dx, Tensor x, Tensor labels,
                               float scale) const {
  const std::int64_t tokens = x.rows(), chunk = chunk_tokens(tokens);
  ArenaScope scope(ctx.scratch);
  const Tensor normed = ctx.scratch.allocate(x.dtype(), x.dims());
  const Tensor dnormed = ctx.scratch.allocate(x.dtype(), x.dims());
  const Tensor rstd = ctx.temporary(DType::f32, {tokens});
  const Tensor lse = ctx.temporary(DType::f32, {tokens});
  const Tensor chunk_logits = ctx.temporary(x.dtype(), {chunk, vocab_size_});
  norm(ctx, normed, rstd, x);
  for (std::int64_t t = 0; t < tokens; t += chunk) {
    const std::int64_t n = std::min(chunk, tokens - t);
    const Tensor logits = chunk_logits.slice(0, n), chunk_labels = labels.slice(t, n);
    linear_forward(ctx.stream, logits, normed.slice(t, n), projection_.value);
    token_losses(ctx, loss.slice(t, n), lse.slice(t, n), logits, chunk_labels);
    cross_entropy_backward(ctx.stream, logits, lse.slice(t, n), chunk_labels, 0, scale);
    linear_backward_input(ctx.stream, dnormed.slice(t, n), logits, projection_.value);
    linear_backward_weight(ctx.stream, projection_.grad, logits, normed.slice(t, n),
                           t == 0 ? ctx.weight_gradients : Write::accumulate);
  }
  rms_norm_backward(ctx.stream, ctx.scratch, dx, norm_.grad, dnormed, {}, x, rstd, norm_.value);
}

}  // namespace jamba

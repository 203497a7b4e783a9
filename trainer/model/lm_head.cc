#include "trainer/model/lm_head.h"

#include <algorithm>

#include "kernels/loss/cross_entropy.h"
#include "kernels/norm/rms_norm.h"

namespace jamba {

namespace {

const Parameters::Entry& projection_entry(const ModelConfig& c, const Parameters& p) {
  return p.entry(c.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
}

/// Logits that exist at once, but always enough rows to keep the matrix product at its full speed.
constexpr std::int64_t kMaxLogits = std::int64_t{1} << 22;
constexpr std::int64_t kMinRows = 256;

}  // namespace

LmHead::LmHead(const ModelConfig& c, const Parameters& p)
    : vocab_size_(c.vocab_size),
      first_id_(projection_entry(c, p).shard.offset[0]),
      num_ids_(projection_entry(c, p).shard.extents[0]),
      eps_(static_cast<float>(c.rms_norm_eps)),
      region_(p.mesh().tp(), p.sequence_parallel()),
      norm_(p.weight("model.final_layernorm.weight")),
      projection_(&projection_entry(c, p).weight) {}

/// The same on all ranks, which exchange something for each chunk.
std::int64_t LmHead::chunk_tokens(std::int64_t tokens) const {
  const std::int64_t most = std::max(kMaxLogits * region_.tp().size() / vocab_size_, kMinRows);
  const std::int64_t num_chunks = (tokens + most - 1) / most;
  return num_chunks == 0 ? 1 : (tokens + num_chunks - 1) / num_chunks;
}

void LmHead::norm(const Context& ctx, Tensor normed, Tensor rstd, Tensor x) const {
  rms_norm_forward(ctx.stream, normed, {}, rstd, x, {}, norm_->value, eps_);
}

void LmHead::logits(const Context& ctx, Tensor logits, Tensor normed, Tensor x) const {
  ArenaScope scope(ctx.scratch);
  norm(ctx, normed, ctx.temporary(DType::f32, {x.rows()}), x);
  linear_forward(ctx.stream, ctx.scratch, logits,
                 region_.gather(ctx.stream, ctx.scratch, normed, logits.rows()),
                 projection_->value);
}

/// Logits of a chunk of tokens, and their losses over the whole vocabulary.
void LmHead::chunk_loss(const Context& ctx, Tensor loss, Tensor lse, Tensor logits, Tensor normed,
                        Tensor labels) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t tokens = normed.rows(), ranks = region_.tp().size();
  const Tensor all = ctx.temporary(DType::f32, {ranks, tokens, 3});
  const Tensor mine = all.slice(region_.tp().rank(), 1).view({tokens, 3});
  linear_forward(ctx.stream, ctx.scratch, logits, normed, projection_->value);
  cross_entropy_forward(ctx.stream, mine, logits, labels, first_id_, vocab_size_);
  region_.tp().all_gather(ctx.stream, all, mine);
  cross_entropy_combine(ctx.stream, loss, lse, all, labels);
}

void LmHead::loss(const Context& ctx, Tensor loss, Tensor x, Tensor labels) const {
  const std::int64_t tokens = labels.numel(), chunk = chunk_tokens(tokens);
  ArenaScope scope(ctx.scratch);
  const Tensor own = ctx.scratch.allocate(x.dtype(), x.dims());
  const Tensor chunk_logits = ctx.temporary(x.dtype(), {chunk, num_ids_});
  const Tensor lse = ctx.temporary(DType::f32, {tokens});
  norm(ctx, own, ctx.temporary(DType::f32, {x.rows()}), x);
  const Tensor normed = region_.gather(ctx.stream, ctx.scratch, own, tokens);
  for (std::int64_t t = 0; t < tokens; t += chunk) {
    const std::int64_t n = std::min(chunk, tokens - t);
    chunk_loss(ctx, loss.slice(t, n), lse.slice(t, n), chunk_logits.slice(0, n), normed.slice(t, n),
               labels.slice(t, n));
  }
}

void LmHead::loss_and_gradient(const Context& ctx, Tensor loss, Tensor dx, Tensor x, Tensor labels,
                               float scale) const {
  const std::int64_t tokens = labels.numel(), chunk = chunk_tokens(tokens);
  ArenaScope scope(ctx.scratch);
  const Tensor own = ctx.scratch.allocate(x.dtype(), x.dims());
  const Tensor dnormed = ctx.scratch.allocate(x.dtype(), x.dims());
  const Tensor rstd = ctx.temporary(DType::f32, {x.rows()});
  const Tensor lse = ctx.temporary(DType::f32, {tokens});
  const Tensor chunk_logits = ctx.temporary(x.dtype(), {chunk, num_ids_});
  norm(ctx, own, rstd, x);
  const Tensor normed = region_.gather(ctx.stream, ctx.scratch, own, tokens);
  const auto partial = region_.partial(ctx.stream, ctx.scratch, dnormed, tokens);
  for (std::int64_t t = 0; t < tokens; t += chunk) {
    const std::int64_t n = std::min(chunk, tokens - t);
    const Tensor logits = chunk_logits.slice(0, n), chunk_labels = labels.slice(t, n);
    chunk_loss(ctx, loss.slice(t, n), lse.slice(t, n), logits, normed.slice(t, n), chunk_labels);
    cross_entropy_backward(ctx.stream, logits, lse.slice(t, n), chunk_labels, first_id_, scale);
    linear_backward_input(ctx.stream, ctx.scratch, partial.tokens.slice(t, n), logits,
                          projection_->value);
    linear_backward_weight(ctx.stream, ctx.scratch, projection_->grad, logits, normed.slice(t, n),
                           t == 0 ? projection_->write : Write::accumulate);
  }
  region_.reduce(ctx.stream, dnormed, partial);
  rms_norm_backward(ctx.stream, ctx.scratch, dx, norm_->grad, dnormed, {}, x, rstd, norm_->value);
}

}  // namespace jamba

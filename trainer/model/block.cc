#include "trainer/model/block.h"

#include "kernels/norm/rms_norm.h"
#include "kernels/pointwise/pointwise.h"

namespace jamba {

namespace {

std::variant<AttentionMixer, MambaMixer> make_mixer(const ModelConfig& c, const Parameters& p,
                                                    MixerKind kind, const std::string& prefix) {
  if (kind == MixerKind::attention) return AttentionMixer(c, p, prefix + "self_attn.");
  return MambaMixer(c, p, prefix + "mamba.");
}

std::variant<Mlp, Moe> make_ffn(const ModelConfig& c, const Parameters& p, FfnKind kind,
                                const std::string& prefix, std::int64_t layer) {
  if (kind == FfnKind::dense) return Mlp(c, p, prefix + "feed_forward.");
  return Moe(c, p, prefix + "feed_forward.", layer);
}

std::string layer_prefix(std::int64_t layer) { return fmt::format("model.layers.{}.", layer); }

/// "layer 3 mamba+moe".
std::string range_name(LayerKind kind, std::int64_t layer) {
  return fmt::format("layer {} {}+{}", layer,
                     kind.mixer == MixerKind::attention ? "attention" : "mamba",
                     kind.ffn == FfnKind::dense ? "dense" : "moe");
}

}  // namespace

Block::Block(const ModelConfig& c, const Parameters& p, LayerKind kind, std::int64_t layer)
    : forward_name_(range_name(kind, layer) + " forward"),
      backward_name_(range_name(kind, layer) + " backward"),
      num_experts_(c.num_experts),
      eps_(static_cast<float>(c.rms_norm_eps)),
      region_(p.mesh().tp(), p.sequence_parallel()),
      mixer_norm_(p.weight(layer_prefix(layer) + "input_layernorm.weight")),
      ffn_norm_(p.weight(layer_prefix(layer) + "pre_ff_layernorm.weight")),
      mixer_(make_mixer(c, p, kind.mixer, layer_prefix(layer))),
      ffn_(make_ffn(c, p, kind.ffn, layer_prefix(layer), layer)) {}

/// norm(x) in scratch: backward computes it again, which is cheaper than to keep it.
Tensor Block::normed(const Context& ctx, Tensor x, Tensor rstd, const Weight& w) const {
  const Tensor y = ctx.scratch.allocate(x.dtype(), x.dims());
  rms_norm_forward(ctx.stream, y, {}, rstd, x, {}, w.value, eps_);
  return y;
}

template <class Forward>
void Block::region_forward(const Context& ctx, const Sequences& seqs, Tensor y, Tensor in,
                           Forward&& forward) const {
  const Tensor whole_in = region_.gather(ctx.stream, ctx.scratch, in, seqs.tokens());
  const auto partial = region_.partial(ctx.stream, ctx.scratch, y, seqs.tokens());
  forward(partial.tokens, whole_in);
  region_.reduce(ctx.stream, y, partial);
}

void Block::forward(const Context& ctx, const Sequences& seqs, Tensor y, Tensor x,
                    const RouterStatistics& statistics, const Routing& routing, Saved& s) const {
  const Range range(ctx.stream.profile(), forward_name_.c_str());
  s.x = x;
  s.rstd_mixer = ctx.activation(DType::f32, {x.rows()});
  const Tensor mixer_out = ctx.activation(x.dtype(), {x.rows(), x.cols()});
  {
    ArenaScope scope(ctx.scratch);
    region_forward(ctx, seqs, mixer_out, normed(ctx, x, s.rstd_mixer, *mixer_norm_),
                   [&](Tensor out, Tensor in) {
                     if (const auto* attention = std::get_if<AttentionMixer>(&mixer_)) {
                       attention->forward(ctx, seqs, out, in,
                                          s.mixer.emplace<AttentionMixer::Saved>());
                     } else {
                       std::get<MambaMixer>(mixer_).forward(ctx, seqs, out, in,
                                                            s.mixer.emplace<MambaMixer::Saved>());
                     }
                   });
  }
  feed_forward(ctx, seqs, y, mixer_out, x, statistics, routing, s);
}

/// y = sum + ffn(norm(sum)), sum = mixer_out + x; the sum takes mixer_out's memory.
void Block::feed_forward(const Context& ctx, const Sequences& seqs, Tensor y, Tensor mixer_out,
                         Tensor x, const RouterStatistics& statistics, const Routing& routing,
                         Saved& s) const {
  s.sum = mixer_out;
  s.rstd_ffn = ctx.activation(DType::f32, {x.rows()});
  ArenaScope scope(ctx.scratch);
  const Tensor own = ctx.scratch.allocate(x.dtype(), x.dims());
  rms_norm_forward(ctx.stream, own, s.sum, s.rstd_ffn, mixer_out, x, ffn_norm_->value, eps_);
  region_forward(ctx, seqs, y, own, [&](Tensor out, Tensor in) {
    if (const auto* mlp = std::get_if<Mlp>(&ffn_)) {
      mlp->forward(ctx, out, in, s.ffn.emplace<Mlp::Saved>());
    } else {
      std::get<Moe>(ffn_).forward(ctx, seqs, out, in, statistics, routing,
                                  s.ffn.emplace<Moe::Saved>());
    }
  });
  add(ctx.stream, y, s.sum);
}

template <class Backward>
void Block::region_backward(const Context& ctx, const Sequences& seqs, Tensor dx, Tensor dy,
                            Tensor in, Backward&& backward) const {
  const Tensor whole_in = region_.gather(ctx.stream, ctx.scratch, in, seqs.tokens());
  const Tensor whole_dy = region_.gather(ctx.stream, ctx.scratch, dy, seqs.tokens());
  const auto partial = region_.partial(ctx.stream, ctx.scratch, dx, seqs.tokens());
  PendingCollective reducing;
  backward(partial.tokens, whole_dy, whole_in,
           [&] { reducing = region_.start_reduce(ctx.stream, partial); });
  region_.finish_reduce(ctx.stream, dx, partial, std::move(reducing));
}

void Block::backward(const Context& ctx, const Sequences& seqs, Tensor dy,
                     const RouterLossGradient& loss, const Routing& routing, const Saved& s) const {
  const Range range(ctx.stream.profile(), backward_name_.c_str());
  ArenaScope scope(ctx.scratch);
  const Tensor dnormed = ctx.scratch.allocate(dy.dtype(), dy.dims());
  const Tensor dsum = dy, dx = dy;
  {
    ArenaScope ffn_scope(ctx.scratch);
    region_backward(ctx, seqs, dnormed, dy, normed(ctx, s.sum, s.rstd_ffn, *ffn_norm_),
                    [&](Tensor din, Tensor dout, Tensor in, const InputGradientReady& ready) {
                      if (const auto* mlp = std::get_if<Mlp>(&ffn_)) {
                        mlp->backward(ctx, din, dout, in, std::get<Mlp::Saved>(s.ffn), ready);
                      } else {
                        std::get<Moe>(ffn_).backward(ctx, seqs, din, dout, in, loss, routing,
                                                     std::get<Moe::Saved>(s.ffn), ready);
                      }
                    });
  }
  rms_norm_backward(ctx.stream, ctx.scratch, dsum, ffn_norm_->grad, dnormed, dy, s.sum, s.rstd_ffn,
                    ffn_norm_->value);
  {
    ArenaScope mixer_scope(ctx.scratch);
    region_backward(ctx, seqs, dnormed, dsum, normed(ctx, s.x, s.rstd_mixer, *mixer_norm_),
                    [&](Tensor din, Tensor dout, Tensor in, const InputGradientReady& ready) {
                      if (const auto* attention = std::get_if<AttentionMixer>(&mixer_)) {
                        attention->backward(ctx, seqs, din, dout, in,
                                            std::get<AttentionMixer::Saved>(s.mixer), ready);
                      } else {
                        std::get<MambaMixer>(mixer_).backward(
                            ctx, seqs, din, dout, in, std::get<MambaMixer::Saved>(s.mixer), ready);
                      }
                    });
  }
  rms_norm_backward(ctx.stream, ctx.scratch, dx, mixer_norm_->grad, dnormed, dsum, s.x,
                    s.rstd_mixer, mixer_norm_->value);
}

std::int64_t Block::num_dropped(const Saved& s) const {
  const auto* moe = std::get_if<Moe>(&ffn_);
  return moe == nullptr ? 0 : moe->num_dropped(std::get<Moe::Saved>(s.ffn));
}

void Block::infer(const Context& ctx, const Sequences& seqs, Tensor y, Tensor x,
                  MixerState& state) const {
  const Tensor mixer_out = ctx.activations.allocate(x.dtype(), x.dims());
  {
    ArenaScope scope(ctx.scratch);
    const Tensor rstd = ctx.temporary(DType::f32, {x.rows()});
    region_forward(
        ctx, seqs, mixer_out, normed(ctx, x, rstd, *mixer_norm_), [&](Tensor out, Tensor in) {
          if (const auto* attention = std::get_if<AttentionMixer>(&mixer_)) {
            attention->infer(ctx, seqs, out, in, std::get<KvCache>(state));
          } else {
            std::get<MambaMixer>(mixer_).infer(ctx, seqs, out, in, std::get<MambaState>(state));
          }
        });
  }
  RouterStatistics statistics;
  if (has_experts()) statistics = make_statistics(ctx.activations, 1, num_experts_, x.rows());
  Saved unused;
  feed_forward(ctx, seqs, y, mixer_out, x, statistics, {}, unused);
}

MixerState Block::make_state(Stream& stream, Arena& arena, DType dtype,
                             std::int64_t capacity) const {
  if (const auto* attention = std::get_if<AttentionMixer>(&mixer_)) {
    return attention->make_cache(arena, dtype, capacity);
  }
  return std::get<MambaMixer>(mixer_).make_state(stream, arena, dtype);
}

}  // namespace jamba

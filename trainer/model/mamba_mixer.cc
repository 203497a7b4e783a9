#include "trainer/model/mamba_mixer.h"

#include <algorithm>

#include "kernels/mamba/causal_conv1d.h"
#include "kernels/mamba/inner_norm.h"
#include "kernels/pointwise/pointwise.h"
#include "parallel/context_parallel.h"

namespace jamba {

MambaMixer::MambaMixer(const ModelConfig& c, const Parameters& p, const std::string& prefix)
    : inner_(p.entry(prefix + "D").shard.extents[0]),
      state_(c.mamba_d_state),
      rank_(c.dt_rank()),
      conv_width_(c.mamba_d_conv),
      eps_(static_cast<float>(c.rms_norm_eps)),
      in_proj_(p.weight(prefix + "in_proj.weight")),
      in_bias_(p.weight(prefix + "in_proj.bias")),
      conv_(p.weight(prefix + "conv1d.weight")),
      conv_bias_(p.weight(prefix + "conv1d.bias")),
      x_proj_(p.weight(prefix + "x_proj.weight")),
      dt_norm_(p.weight(prefix + "dt_layernorm.weight")),
      b_norm_(p.weight(prefix + "b_layernorm.weight")),
      c_norm_(p.weight(prefix + "c_layernorm.weight")),
      dt_proj_(p.weight(prefix + "dt_proj.weight")),
      dt_bias_(p.weight(prefix + "dt_proj.bias")),
      a_log_(p.weight(prefix + "A_log")),
      d_(p.weight(prefix + "D")),
      out_proj_(p.weight(prefix + "out_proj.weight")),
      out_bias_(p.weight(prefix + "out_proj.bias")) {}

namespace {

/// Of in_proj's weight or bias [2, inner, ...]: what makes the convolution's input (half 0) or the
/// gate z (half 1). An absent bias has absent halves.
Tensor in_proj_half(const Tensor& t, int half) {
  if (!t.present()) return {};
  const Tensor part = t.slice(half, 1);
  return t.rank() == 3 ? part.view({t.dim(1), t.dim(2)}) : part.view({t.dim(1)});
}

}  // namespace

MambaMixer::ScanOperands MambaMixer::project(const Context& ctx, const Sequences& seqs, Tensor x,
                                             Tensor history, Saved& s) const {
  const std::int64_t tokens = seqs.tokens();
  const DType dtype = x.dtype();
  s.conv_in = ctx.activation(dtype, {seqs.batch, seqs.seq, inner_});
  s.z = ctx.activation(dtype, {seqs.batch, seqs.seq, inner_});
  for (const int half : {0, 1}) {
    const Tensor out = (half == 0 ? s.conv_in : s.z).view({tokens, inner_});
    linear_forward(ctx.stream, ctx.scratch, out, x, in_proj_half(in_proj_->value, half),
                   in_proj_half(in_bias_->value, half));
  }
  if (ctx.mesh.cp().size() > 1) {
    history = s.halo = ctx.activation(dtype, {seqs.batch, conv_width_ - 1, inner_});
    receive_halo(ctx.stream, ctx.scratch, ctx.mesh.cp(), s.halo, s.conv_in);
  }
  const Tensor u = convolve(ctx, seqs, history, s);

  s.projected = ctx.activation(DType::f32, {tokens, rank_ + 2 * state_});
  s.dt = ctx.activation(dtype, {tokens, rank_});
  s.b = ctx.activation(DType::f32, {tokens, state_});
  s.c = ctx.activation(DType::f32, {tokens, state_});
  if (dt_norm_->present()) s.rstd = ctx.activation(DType::f32, {tokens, 3});
  linear_forward(ctx.stream, ctx.scratch, s.projected, u.view({tokens, inner_}), x_proj_->value);
  ctx.mesh.tp().all_reduce(ctx.stream, s.projected);
  inner_norm_forward(ctx.stream, s.dt, s.b, s.c, s.rstd, s.projected, dt_norm_->value,
                     b_norm_->value, c_norm_->value, eps_);
  return {u, project_delta(ctx, seqs, s)};
}

Tensor MambaMixer::convolve(const Context& ctx, const Sequences& seqs, Tensor history,
                            const Saved& s) const {
  const Tensor u = ctx.scratch.allocate(s.conv_in.dtype(), s.conv_in.dims());
  causal_conv1d_forward(ctx.stream, u, s.conv_in, conv_->value, conv_bias_->value, seqs.doc_start,
                        history);
  return u;
}

Tensor MambaMixer::project_delta(const Context& ctx, const Sequences& seqs, const Saved& s) const {
  const Tensor delta = ctx.scratch.allocate(s.conv_in.dtype(), s.conv_in.dims());
  linear_forward(ctx.stream, ctx.scratch, delta.view({seqs.tokens(), inner_}), s.dt,
                 dt_proj_->value);
  return delta;
}

SelectiveScanInputs MambaMixer::scan_inputs(const Sequences& seqs, const ScanOperands& operands,
                                            const Saved& s, Tensor h0) const {
  return {.u = operands.u,
          .delta = operands.delta,
          .z = s.z,
          .b = s.b.view({seqs.batch, seqs.seq, state_}),
          .c = s.c.view({seqs.batch, seqs.seq, state_}),
          .delta_bias = dt_bias_->value,
          .d = d_->value,
          .a_log = a_log_->value,
          .h0 = h0,
          .doc_start = seqs.doc_start};
}

/// The output's bias is in one rank's partial sum.
void MambaMixer::project_out(const Context& ctx, Tensor y, Tensor gated) const {
  const Tensor flat = gated.view({gated.rows(), inner_});
  linear_forward(ctx.stream, ctx.scratch, y, flat, out_proj_->value,
                 ctx.mesh.tp().rank() == 0 ? out_bias_->value : Tensor{});
}

/// Few enough that the next rank starts early, enough to keep threads busy; the same on every rank
/// and for any number of threads, since it decides how sums over channels are rounded.
std::int64_t MambaMixer::channels_a_hand_over(const Context& ctx) const {
  constexpr std::int64_t kHandOvers = 4;
  if (ctx.mesh.cp().size() == 1) return inner_;
  return kScanGroup * std::max<std::int64_t>(1, inner_ / (kHandOvers * kScanGroup));
}

void MambaMixer::scan(const Context& ctx, const Sequences& seqs, Tensor gated,
                      const ScanOperands& operands, Saved& s) const {
  StateChain chain(ctx.mesh.cp(), StateChain::Direction::forward);
  Tensor h_last;
  if (chain.receives()) s.h0 = ctx.activation(DType::f32, {seqs.batch, inner_, state_});
  if (chain.sends()) h_last = ctx.temporary(DType::f32, {seqs.batch, inner_, state_});
  const std::int64_t step = channels_a_hand_over(ctx);
  for (std::int64_t begin = 0; begin < inner_; begin += step) {
    const ChannelRange range{begin, std::min(step, inner_ - begin)};
    chain.receive(ctx.stream, ctx.scratch, s.h0, range.begin, range.count);
    selective_scan_forward(ctx.stream, ctx.scratch, gated, h_last, s.scan,
                           scan_inputs(seqs, operands, s, s.h0), range);
    chain.send(ctx.stream, ctx.scratch, h_last, range.begin, range.count);
  }
  chain.finish();
}

void MambaMixer::forward(const Context& ctx, const Sequences& seqs, Tensor y, Tensor x,
                         Saved& s) const {
  ArenaScope scope(ctx.scratch);
  s.halo = s.h0 = {};
  const ScanOperands operands = project(ctx, seqs, x, {}, s);
  const Tensor gated = ctx.scratch.allocate(x.dtype(), s.z.dims());
  s.scan = {ctx.activation(DType::u8, {scan_states_bytes(seqs.batch, seqs.seq, inner_, state_)}),
            ctx.activations.allocate(x.dtype(), s.z.dims())};
  scan(ctx, seqs, gated, operands, s);
  project_out(ctx, y, gated);
}

void MambaMixer::scan_backward(const Context& ctx, const Sequences& seqs,
                               const SelectiveScanGradients& gradients, Tensor gated, Tensor dgated,
                               const ScanOperands& operands, const Saved& s) const {
  StateChain chain(ctx.mesh.cp(), StateChain::Direction::backward);
  SelectiveScanGradients d = gradients;
  Tensor dh_last;
  if (chain.receives()) dh_last = ctx.temporary(DType::f32, {seqs.batch, inner_, state_});
  if (chain.sends()) d.dh0 = ctx.temporary(DType::f32, {seqs.batch, inner_, state_});
  const std::int64_t step = channels_a_hand_over(ctx);
  for (std::int64_t begin = 0; begin < inner_; begin += step) {
    const ChannelRange range{begin, std::min(step, inner_ - begin)};
    chain.receive(ctx.stream, ctx.scratch, dh_last, range.begin, range.count);
    selective_scan_backward(ctx.stream, ctx.scratch, d, gated, dgated, dh_last, s.scan,
                            scan_inputs(seqs, operands, s, s.h0), range,
                            begin == 0 ? Write::overwrite : Write::accumulate);
    chain.send(ctx.stream, ctx.scratch, d.dh0, range.begin, range.count);
  }
  chain.finish();
}

void MambaMixer::backward(const Context& ctx, const Sequences& seqs, Tensor dx, Tensor dy, Tensor x,
                          const Saved& s, const InputGradientReady& dx_ready) const {
  const std::int64_t tokens = seqs.tokens();
  const DType dtype = dy.dtype();
  const std::int64_t width = rank_ + 2 * state_;
  const auto flat = [&](const Tensor& t) { return t.view({tokens, inner_}); };
  ArenaScope scope(ctx.scratch);
  const Tensor dgated = ctx.scratch.allocate(dtype, s.z.dims());
  linear_backward_input(ctx.stream, ctx.scratch, flat(dgated), dy, out_proj_->value);

  const ScanOperands operands{convolve(ctx, seqs, s.halo, s), project_delta(ctx, seqs, s)};
  const Tensor du = ctx.scratch.allocate(dtype, s.z.dims());
  const Tensor ddelta = ctx.scratch.allocate(dtype, s.z.dims());
  const Tensor dz = ctx.scratch.allocate(dtype, s.z.dims());
  // What goes to the inner norms' backward lies together, to be summed over ranks as one.
  const Tensor dnormed = ctx.temporary(DType::f32, {tokens * width});
  const Tensor ddt = dnormed.slice(0, tokens * rank_).view({tokens, rank_});
  const Tensor db = dnormed.slice(tokens * rank_, tokens * state_).view({tokens, state_});
  const Tensor dc =
      dnormed.slice(tokens * (rank_ + state_), tokens * state_).view({tokens, state_});
  const Tensor gated = dgated;
  scan_backward(ctx, seqs,
                {.du = du,
                 .ddelta = ddelta,
                 .dz = dz,
                 .db = db.view({seqs.batch, seqs.seq, state_}),
                 .dc = dc.view({seqs.batch, seqs.seq, state_}),
                 .ddelta_bias = dt_bias_->grad,
                 .dd = d_->grad,
                 .da_log = a_log_->grad,
                 .dh0 = {}},
                gated, dgated, operands, s);
  linear_backward_input(ctx.stream, ctx.scratch, ddt, flat(ddelta), dt_proj_->value);
  PendingCollective summing = ctx.mesh.tp().start_all_reduce(ctx.stream, dnormed);
  linear_backward_weight(ctx.stream, ctx.scratch, out_proj_->grad, dy, flat(gated),
                         out_proj_->write);
  if (out_bias_->present()) bias_backward(ctx.stream, ctx.scratch, out_bias_->grad, dy);
  linear_backward_weight(ctx.stream, ctx.scratch, dt_proj_->grad, flat(ddelta), s.dt,
                         dt_proj_->write);
  summing.wait();

  const Tensor dprojected = ctx.temporary(DType::f32, {tokens, width});
  inner_norm_backward(ctx.stream, ctx.scratch, dprojected, dt_norm_->grad, b_norm_->grad,
                      c_norm_->grad, ddt, db, dc, s.projected, s.rstd, dt_norm_->value,
                      b_norm_->value, c_norm_->value);
  Tensor dprojected_low = dprojected;
  if (dtype != DType::f32) {
    dprojected_low = ctx.temporary(dtype, {tokens, width});
    cast(ctx.stream, dprojected_low, dprojected);
  }
  linear_backward_input(ctx.stream, ctx.scratch, flat(du), dprojected_low, x_proj_->value,
                        Write::accumulate);
  linear_backward_weight(ctx.stream, ctx.scratch, x_proj_->grad, dprojected_low, flat(operands.u),
                         x_proj_->write);

  const Tensor dconv_in = gated;  // used up
  const Tensor dhalo = s.halo.present() ? ctx.scratch.allocate(dtype, s.halo.dims()) : Tensor();
  causal_conv1d_backward(ctx.stream, ctx.scratch, dconv_in, conv_->grad, conv_bias_->grad, dhalo,
                         du, s.conv_in, conv_->value, conv_bias_->value, seqs.doc_start, s.halo);
  if (dhalo.present()) return_halo(ctx.stream, ctx.scratch, ctx.mesh.cp(), dconv_in, dhalo);
  const Tensor halves[] = {flat(dconv_in), flat(dz)};
  for (const int half : {0, 1}) {
    linear_backward_input(ctx.stream, ctx.scratch, dx, halves[half],
                          in_proj_half(in_proj_->value, half),
                          half == 0 ? Write::overwrite : Write::accumulate);
  }
  dx_ready();
  for (const int half : {0, 1}) {
    linear_backward_weight(ctx.stream, ctx.scratch, in_proj_half(in_proj_->grad, half),
                           halves[half], x, in_proj_->write);
    if (in_bias_->present()) {
      bias_backward(ctx.stream, ctx.scratch, in_proj_half(in_bias_->grad, half), halves[half]);
    }
  }
}

void MambaMixer::infer(const Context& ctx, const Sequences& seqs, Tensor y, Tensor x,
                       MambaState& state) const {
  JAMBA_CHECK(seqs.batch == 1, "generation runs one sequence, got {}", seqs.batch);
  ArenaScope scope(ctx.scratch);
  Saved s;
  const ScanOperands operands = project(ctx, seqs, x, state.conv, s);
  const Tensor gated = ctx.scratch.allocate(x.dtype(), s.z.dims());
  const Tensor h_last = ctx.temporary(DType::f32, {1, inner_, state_});
  selective_scan_forward(ctx.stream, ctx.scratch, gated, h_last, {},
                         scan_inputs(seqs, operands, s, state.h));
  cast(ctx.stream, state.h, h_last);

  // The window slides: the newest K-1 of (old window, new inputs) stay.
  const std::int64_t keep = std::max<std::int64_t>(conv_width_ - 1 - seqs.seq, 0);
  const std::int64_t fresh = conv_width_ - 1 - keep;
  const Tensor window = state.conv.view({conv_width_ - 1, inner_});
  const Tensor next = ctx.activation(x.dtype(), {conv_width_ - 1, inner_});
  cast(ctx.stream, next.slice(0, keep), window.slice(conv_width_ - 1 - keep, keep));
  cast(ctx.stream, next.slice(keep, fresh),
       s.conv_in.view({seqs.seq, inner_}).slice(seqs.seq - fresh, fresh));
  cast(ctx.stream, window, next);
  project_out(ctx, y, gated);
}

MambaState MambaMixer::make_state(Stream& stream, Arena& arena, DType dtype) const {
  const MambaState state{arena.allocate(dtype, {1, conv_width_ - 1, inner_}),
                         arena.allocate(DType::f32, {1, inner_, state_})};
  zero(stream, state.conv);
  zero(stream, state.h);
  return state;
}

}  // namespace jamba

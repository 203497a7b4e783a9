#include "trainer/model/mamba_mixer.h"

#include <algorithm>

#include "kernels/mamba/causal_conv1d.h"
#include "kernels/mamba/inner_norm.h"
#include "kernels/pointwise/pointwise.h"

namespace jamba {

MambaMixer::MambaMixer(const ModelConfig& c, const Parameters& p, const std::string& prefix)
    : inner_(c.inner_size()),
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

/// Rows of in_proj that make the convolution's input (half 0) or the gate z (half 1).
Tensor MambaMixer::in_proj_rows(const Tensor& t, int half) const {
  return t.slice(half * inner_, inner_);
}

MambaMixer::ScanOperands MambaMixer::project(const Context& ctx, const Sequences& seqs, Tensor x,
                                             Tensor history, Saved& s) const {
  const std::int64_t tokens = seqs.tokens();
  const DType dtype = x.dtype();
  s.conv_in = ctx.activation(dtype, {seqs.batch, seqs.seq, inner_});
  s.z = ctx.activation(dtype, {seqs.batch, seqs.seq, inner_});
  for (const int half : {0, 1}) {
    const Tensor out = (half == 0 ? s.conv_in : s.z).view({tokens, inner_});
    linear_forward(ctx.stream, out, x, in_proj_rows(in_proj_.value, half));
    if (in_bias_.present()) bias_forward(ctx.stream, out, in_proj_rows(in_bias_.value, half));
  }
  const Tensor u = convolve(ctx, seqs, history, s);

  s.projected = ctx.activation(DType::f32, {tokens, rank_ + 2 * state_});
  s.dt = ctx.activation(dtype, {tokens, rank_});
  s.b = ctx.activation(DType::f32, {tokens, state_});
  s.c = ctx.activation(DType::f32, {tokens, state_});
  if (dt_norm_.present()) s.rstd = ctx.activation(DType::f32, {tokens, 3});
  linear_forward(ctx.stream, s.projected, u.view({tokens, inner_}), x_proj_.value);
  inner_norm_forward(ctx.stream, s.dt, s.b, s.c, s.rstd, s.projected, dt_norm_.value, b_norm_.value,
                     c_norm_.value, eps_);
  return {u, project_delta(ctx, seqs, s)};
}

Tensor MambaMixer::convolve(const Context& ctx, const Sequences& seqs, Tensor history,
                            const Saved& s) const {
  const Tensor u = ctx.scratch.allocate(s.conv_in.dtype(), s.conv_in.dims());
  causal_conv1d_forward(ctx.stream, u, s.conv_in, conv_.value, conv_bias_.value, seqs.doc_start,
                        history);
  return u;
}

Tensor MambaMixer::project_delta(const Context& ctx, const Sequences& seqs, const Saved& s) const {
  const Tensor delta = ctx.scratch.allocate(s.conv_in.dtype(), s.conv_in.dims());
  linear_forward(ctx.stream, delta.view({seqs.tokens(), inner_}), s.dt, dt_proj_.value);
  return delta;
}

SelectiveScanInputs MambaMixer::scan_inputs(const Sequences& seqs, const ScanOperands& operands,
                                            const Saved& s, Tensor h0) const {
  return {.u = operands.u,
          .delta = operands.delta,
          .z = s.z,
          .b = s.b.view({seqs.batch, seqs.seq, state_}),
          .c = s.c.view({seqs.batch, seqs.seq, state_}),
          .delta_bias = dt_bias_.value,
          .d = d_.value,
          .a_log = a_log_.value,
          .h0 = h0,
          .doc_start = seqs.doc_start};
}

void MambaMixer::project_out(const Context& ctx, Tensor y, Tensor gated) const {
  const Tensor flat = gated.view({gated.rows(), inner_});
  linear_forward(ctx.stream, y, flat, out_proj_.value);
  if (out_bias_.present()) bias_forward(ctx.stream, y, out_bias_.value);
}

void MambaMixer::forward(const Context& ctx, const Sequences& seqs, Tensor y, Tensor x,
                         Saved& s) const {
  ArenaScope scope(ctx.scratch);
  const ScanOperands operands = project(ctx, seqs, x, {}, s);
  const Tensor gated = ctx.scratch.allocate(x.dtype(), s.z.dims());
  s.scan = {ctx.activation(DType::u8, {scan_states_bytes(seqs.batch, seqs.seq, inner_, state_)}),
            ctx.activations.allocate(x.dtype(), s.z.dims())};
  selective_scan_forward(ctx.stream, ctx.scratch, gated, {}, s.scan,
                         scan_inputs(seqs, operands, s, {}));
  project_out(ctx, y, gated);
}

void MambaMixer::backward(const Context& ctx, const Sequences& seqs, Tensor dx, Tensor dy, Tensor x,
                          const Saved& s) const {
  const std::int64_t tokens = seqs.tokens();
  const DType dtype = dy.dtype();
  const std::int64_t width = rank_ + 2 * state_;
  const auto flat = [&](const Tensor& t) { return t.view({tokens, inner_}); };
  ArenaScope scope(ctx.scratch);
  const Tensor dgated = ctx.scratch.allocate(dtype, s.z.dims());
  linear_backward_input(ctx.stream, flat(dgated), dy, out_proj_.value);

  const ScanOperands operands{convolve(ctx, seqs, {}, s), project_delta(ctx, seqs, s)};
  const Tensor du = ctx.scratch.allocate(dtype, s.z.dims());
  const Tensor ddelta = ctx.scratch.allocate(dtype, s.z.dims());
  const Tensor dz = ctx.scratch.allocate(dtype, s.z.dims());
  const Tensor db = ctx.temporary(DType::f32, {seqs.batch, seqs.seq, state_});
  const Tensor dc = ctx.temporary(DType::f32, {seqs.batch, seqs.seq, state_});
  const Tensor gated = dgated;
  selective_scan_backward(ctx.stream, ctx.scratch,
                          {.du = du,
                           .ddelta = ddelta,
                           .dz = dz,
                           .db = db,
                           .dc = dc,
                           .ddelta_bias = dt_bias_.grad,
                           .dd = d_.grad,
                           .da_log = a_log_.grad,
                           .dh0 = {}},
                          gated, dgated, {}, s.scan, scan_inputs(seqs, operands, s, {}));
  linear_backward_weight(ctx.stream, out_proj_.grad, dy, flat(gated), ctx.weight_gradients);
  if (out_bias_.present()) bias_backward(ctx.stream, ctx.scratch, out_bias_.grad, dy);

  const Tensor ddt = ctx.temporary(dtype, {tokens, rank_});
  linear_backward_input(ctx.stream, ddt, flat(ddelta), dt_proj_.value);
  linear_backward_weight(ctx.stream, dt_proj_.grad, flat(ddelta), s.dt, ctx.weight_gradients);
  const Tensor dprojected = ctx.temporary(DType::f32, {tokens, width});
  inner_norm_backward(ctx.stream, ctx.scratch, dprojected, dt_norm_.grad, b_norm_.grad,
                      c_norm_.grad, ddt, db.view({tokens, state_}), dc.view({tokens, state_}),
                      s.projected, s.rstd, dt_norm_.value, b_norm_.value, c_norm_.value);
  Tensor dprojected_low = dprojected;
  if (dtype != DType::f32) {
    dprojected_low = ctx.temporary(dtype, {tokens, width});
    cast(ctx.stream, dprojected_low, dprojected);
  }
  linear_backward_input(ctx.stream, flat(du), dprojected_low, x_proj_.value, Write::accumulate);
  linear_backward_weight(ctx.stream, x_proj_.grad, dprojected_low, flat(operands.u),
                         ctx.weight_gradients);

  const Tensor dconv_in = gated;  // used up
  causal_conv1d_backward(ctx.stream, ctx.scratch, dconv_in, conv_.grad, conv_bias_.grad, {}, du,
                         s.conv_in, conv_.value, conv_bias_.value, seqs.doc_start, {});
  for (const int half : {0, 1}) {
    const Tensor dhalf = flat(half == 0 ? dconv_in : dz);
    linear_backward_input(ctx.stream, dx, dhalf, in_proj_rows(in_proj_.value, half),
                          half == 0 ? Write::overwrite : Write::accumulate);
    linear_backward_weight(ctx.stream, in_proj_rows(in_proj_.grad, half), dhalf, x,
                           ctx.weight_gradients);
    if (in_bias_.present()) {
      bias_backward(ctx.stream, ctx.scratch, in_proj_rows(in_bias_.grad, half), dhalf);
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

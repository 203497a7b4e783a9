#include "trainer/model/mlp.h"

#include "kernels/pointwise/swiglu.h"

namespace jamba {

Mlp::Mlp(const ModelConfig&, const Parameters& p, const std::string& prefix)
    : gate_up_(p.weight(prefix + "gate_up_proj.weight")),
      down_(p.weight(prefix + "down_proj.weight")) {}

namespace {

/// [2, ffn, hidden] as one matrix.
Tensor matrix(const Tensor& gate_up) {
  return gate_up.view({gate_up.dim(0) * gate_up.dim(1), gate_up.dim(2)});
}

}  // namespace

void Mlp::forward(const Context& ctx, Tensor y, Tensor x, Saved& saved) const {
  const std::int64_t tokens = x.rows(), ffn = down_->value.cols();
  saved.gate_up = ctx.activation(x.dtype(), {tokens, 2 * ffn});
  linear_forward(ctx.stream, ctx.scratch, saved.gate_up, x, matrix(gate_up_->value));
  ArenaScope scope(ctx.scratch);
  const Tensor act = ctx.temporary(x.dtype(), {tokens, ffn});
  swiglu_forward(ctx.stream, act, saved.gate_up);
  linear_forward(ctx.stream, ctx.scratch, y, act, down_->value);
}

void Mlp::backward(const Context& ctx, Tensor dx, Tensor dy, Tensor x, const Saved& saved,
                   const InputGradientReady& dx_ready) const {
  const std::int64_t tokens = dy.rows(), ffn = down_->value.cols();
  ArenaScope scope(ctx.scratch);
  const Tensor dact = ctx.temporary(dy.dtype(), {tokens, ffn}), act = dact;
  linear_backward_input(ctx.stream, ctx.scratch, dact, dy, down_->value);
  swiglu_backward(ctx.stream, saved.gate_up, act, {}, dact, saved.gate_up, {});  // both in place
  linear_backward_input(ctx.stream, ctx.scratch, dx, saved.gate_up, matrix(gate_up_->value));
  dx_ready();
  linear_backward_weight(ctx.stream, ctx.scratch, down_->grad, dy, act, down_->write);
  linear_backward_weight(ctx.stream, ctx.scratch, matrix(gate_up_->grad), saved.gate_up, x,
                         gate_up_->write);
}

}  // namespace jamba

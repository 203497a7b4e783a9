#pragma once
#include "kernels/mamba/selective_scan.h"
#include "trainer/model/context.h"
#include "trainer/model/model_config.h"
#include "trainer/model/parameters.h"

namespace jamba {

/// What a Mamba layer carries from token to token, for generation of one sequence.
/// Shapes: conv [1, K-1, inner], the last inputs of the convolution; h float32 [1, inner, state].
struct MambaState {
  Tensor conv, h;
};

/// Mamba-1 with Jamba's RMSNorms on dt, B and C.
/// Parallel: tensor-parallel ranks have their own channels. x_proj, which reads all of them, is
/// summed over ranks before the inner norms, and the gradient of its norms' outputs before their
/// backward, so that norms and their weights' gradients are whole and equal on every rank.
/// Context-parallel ranks pass on the convolution's last inputs and the scan's state.
/// Source: arXiv:2312.00752; arXiv:2403.19887 for the inner norms.
class MambaMixer {
 public:
  /// prefix: "model.layers.0.mamba."
  MambaMixer(const ModelConfig&, const Parameters&, const std::string& prefix);

  /// What backward cannot redo cheaply.
  struct Saved {
    Tensor conv_in, z;  // [tokens, inner], the two halves of in_proj
    Tensor projected;   // float32 [tokens, R + 2N], x_proj before the inner norms
    Tensor dt, b, c;    // [tokens, R]; float32 [tokens, N]
    Tensor rstd;        // float32 [tokens, 3]; absent without inner norms
    SelectiveScanSaved scan;
    Tensor halo, h0;  // from the context-parallel rank before; absent without
  };
  /// x [tokens, hidden]; y [tokens, hidden], this rank's partial sum.
  void forward(const Context&, const Sequences&, Tensor y, Tensor x, Saved&) const;
  /// x: what forward had. dx, this rank's partial sum, overwrites; dx_ready is called when it is
  /// complete.
  void backward(const Context&, const Sequences&, Tensor dx, Tensor dy, Tensor x, const Saved&,
                const InputGradientReady& dx_ready) const;

  /// Forward of the next tokens of one sequence; advances the state.
  void infer(const Context&, const Sequences&, Tensor y, Tensor x, MambaState&) const;
  /// The state before the first token: all zero.
  MambaState make_state(Stream&, Arena&, DType) const;

 private:
  /// [tokens, inner] each: u after convolution and SiLU; delta before bias and softplus.
  struct ScanOperands {
    Tensor u, delta;
  };
  /// in_proj, convolution, x_proj, inner norms and dt_proj. Leaves the operands in scratch.
  ScanOperands project(const Context&, const Sequences&, Tensor x, Tensor history, Saved& s) const;
  void scan(const Context&, const Sequences&, Tensor gated, const ScanOperands&, Saved&) const;
  void scan_backward(const Context&, const Sequences&, const SelectiveScanGradients&, Tensor gated,
                     Tensor dgated, const ScanOperands&, const Saved&) const;
  std::int64_t channels_a_hand_over(const Context&) const;
  Tensor convolve(const Context&, const Sequences&, Tensor history, const Saved&) const;
  Tensor project_delta(const Context&, const Sequences&, const Saved&) const;
  SelectiveScanInputs scan_inputs(const Sequences&, const ScanOperands&, const Saved&,
                                  Tensor h0) const;
  void project_out(const Context&, Tensor y, Tensor gated) const;

  std::int64_t inner_;  // channels of this rank
  std::int64_t state_, rank_, conv_width_;
  float eps_;
  const Weight *in_proj_, *in_bias_, *conv_, *conv_bias_, *x_proj_, *dt_norm_, *b_norm_, *c_norm_,
      *dt_proj_, *dt_bias_, *a_log_, *d_, *out_proj_, *out_bias_;
};

}  // namespace jamba

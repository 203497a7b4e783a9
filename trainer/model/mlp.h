#pragma once
#include "trainer/model/context.h"
#include "trainer/model/model_config.h"
#include "trainer/model/parameters.h"

namespace jamba {

/// Dense SwiGLU feed-forward: down(silu(gate x) * up x).
/// Parallel: tensor-parallel ranks have their own channels of gate and up.
class Mlp {
 public:
  /// prefix: "model.layers.3.feed_forward."
  Mlp(const ModelConfig&, const Parameters&, const std::string& prefix);

  struct Saved {
    Tensor gate_up;
  };
  /// x [tokens, hidden]; y [tokens, hidden], this rank's partial sum.
  void forward(const Context&, Tensor y, Tensor x, Saved&) const;
  /// x: what forward had. dx, this rank's partial sum, overwrites; dx_ready is called when it is
  /// complete. Weights' gradients accumulate.
  void backward(const Context&, Tensor dx, Tensor dy, Tensor x, const Saved&,
                const InputGradientReady& dx_ready) const;

 private:
  const Weight *gate_up_, *down_;
};

}  // namespace jamba

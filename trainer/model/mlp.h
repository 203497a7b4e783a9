#pragma once
#include "trainer/model/context.h"
#include "trainer/model/model_config.h"
#include "trainer/model/parameters.h"

namespace jamba {

/// Dense SwiGLU feed-forward: down(silu(gate x) * up x).
class Mlp {
 public:
  /// prefix: "model.layers.3.feed_forward."
  Mlp(const ModelConfig&, const Parameters&, const std::string& prefix);

  struct Saved {
    Tensor gate_up;
  };
  /// x, y [tokens, hidden].
  void forward(const Context&, Tensor y, Tensor x, Saved&) const;
  /// dx, dy [tokens, hidden]; x: what forward had. dx overwrites; weights' gradients accumulate.
  void backward(const Context&, Tensor dx, Tensor dy, Tensor x, const Saved&) const;

 private:
  Weight gate_up_, down_;
};

}  // namespace jamba

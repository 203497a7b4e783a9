#pragma once
#include "kernels/core/memory.h"
#include "trainer/model/parameters.h"
#include "trainer/optim/optimizer_config.h"

namespace jamba {

/// Which parameters decay.
enum class DecayRule {
  standard,  // as ParameterSpec::weight_decay says
  by_rank    // every tensor of rank 2 and more, A_log too (torch recipes that group by ndim)
};

/// AdamW over all parameters of a model, with its two moments.
class AdamWOptimizer {
 public:
  AdamWOptimizer(const Parameters&, const OptimizerConfig&, DecayRule = DecayRule::standard);

  /// One update from the gradients in `parameters`; `update` counts from 1.
  /// grad_scale multiplies every gradient first: the clipping factor.
  void step(Stream&, double lr, std::int64_t update, double grad_scale) const;

  /// Moments in the layout of Parameters' flat buffers.
  Tensor flat_m() const { return m_.tensor(DType::f32, {parameters_.flat_size()}); }
  Tensor flat_v() const { return v_.tensor(DType::f32, {parameters_.flat_size()}); }

 private:
  bool decays(const ParameterSpec&) const;

  const Parameters& parameters_;
  OptimizerConfig config_;
  DecayRule rule_;
  Buffer m_, v_;
};

/// min(1, limit / (norm + 1e-6)); 1 where limit is 0. As torch.nn.utils.clip_grad_norm_.
double clip_factor(double norm, double limit);

}  // namespace jamba

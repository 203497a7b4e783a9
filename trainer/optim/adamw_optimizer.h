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

/// AdamW over the parameters that this rank owns, with their two moments.
class AdamWOptimizer {
 public:
  AdamWOptimizer(Parameters&, const OptimizerConfig&, DecayRule = DecayRule::standard);

  /// One update from the finished gradients in `parameters`, and the new values on their way to
  /// the other ranks; `update` counts from 1.
  /// grad_scale multiplies every gradient first: the clipping factor.
  void step(double lr, std::int64_t update, double grad_scale) const;

  /// Moments of a stretch: float32 [stretch.count].
  Tensor m(const Parameters::Entry& e, const Parameters::Stretch& s) const { return of(m_, e, s); }
  Tensor v(const Parameters::Entry& e, const Parameters::Stretch& s) const { return of(v_, e, s); }

  std::int64_t bytes() const;

 private:
  bool decays(const ParameterSpec&) const;
  static Tensor of(const std::vector<Buffer>&, const Parameters::Entry&,
                   const Parameters::Stretch&);

  Parameters& parameters_;
  OptimizerConfig config_;
  DecayRule rule_;
  std::vector<Buffer> m_, v_;  // by unit, as ZeroStore::owned
};

/// min(1, limit / (norm + 1e-6)); 1 where limit is 0. As torch.nn.utils.clip_grad_norm_.
double clip_factor(double norm, double limit);

}  // namespace jamba

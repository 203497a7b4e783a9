#include "trainer/optim/adamw_optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/optim/adamw.h"

namespace jamba {

AdamWOptimizer::AdamWOptimizer(const Parameters& parameters, const OptimizerConfig& config,
                               DecayRule rule)
    : parameters_(parameters),
      config_(config),
      rule_(rule),
      m_(parameters.flat_size() * dtype_bytes(DType::f32)),
      v_(parameters.flat_size() * dtype_bytes(DType::f32)) {}

bool AdamWOptimizer::decays(const ParameterSpec& spec) const {
  return rule_ == DecayRule::by_rank ? spec.shape.size() > 1 : spec.weight_decay;
}

void AdamWOptimizer::step(Stream& stream, double lr, std::int64_t update, double grad_scale) const {
  const auto t = static_cast<double>(update);
  AdamWStep numbers{.lr = static_cast<float>(lr),
                    .beta1 = static_cast<float>(config_.beta1),
                    .beta2 = static_cast<float>(config_.beta2),
                    .eps = static_cast<float>(config_.eps),
                    .bias_correction1 = static_cast<float>(1 - std::pow(config_.beta1, t)),
                    .bias_correction2 = static_cast<float>(1 - std::pow(config_.beta2, t)),
                    .grad_scale = static_cast<float>(grad_scale)};
  const Tensor m = flat_m(), v = flat_v();
  for (const Parameters::Entry& entry : parameters_.entries()) {
    const std::int64_t n = entry.spec.numel();
    numbers.weight_decay = decays(entry.spec) ? static_cast<float>(config_.weight_decay) : 0.0f;
    adamw(stream, entry.value.view({n}), entry.rest, m.slice(entry.begin, n),
          v.slice(entry.begin, n), entry.grad.view({n}), numbers);
  }
}

double clip_factor(double norm, double limit) {
  return limit > 0 ? std::min(1.0, limit / (norm + 1e-6)) : 1.0;
}

}  // namespace jamba

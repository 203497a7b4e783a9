#include "trainer/optim/adamw_optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/optim/adamw.h"

namespace jamba {

AdamWOptimizer::AdamWOptimizer(Parameters& parameters, const OptimizerConfig& config,
                               DecayRule rule)
    : parameters_(parameters), config_(config), rule_(rule) {
  const ZeroStore& store = parameters.store();
  for (int unit = 0; unit < store.num_units(); ++unit) {
    const std::int64_t bytes = store.owned(unit).count * dtype_bytes(DType::f32);
    m_.emplace_back(bytes, parameters.stream().device());
    v_.emplace_back(bytes, parameters.stream().device());
  }
}

bool AdamWOptimizer::decays(const ParameterSpec& spec) const {
  // Of the tensors with a rank above one, A_log alone does not decay.
  return spec.weight_decay || (rule_ == DecayRule::by_rank && spec.init == InitRule::a_log);
}

Tensor AdamWOptimizer::of(const std::vector<Buffer>& moments, const Parameters::Entry& e,
                          const Parameters::Stretch& stretch) {
  const Buffer& unit = moments[static_cast<std::size_t>(e.unit)];
  return unit.tensor(DType::f32, {unit.bytes() / dtype_bytes(DType::f32)})
      .slice(stretch.offset, stretch.count);
}

std::int64_t AdamWOptimizer::bytes() const {
  std::int64_t sum = 0;
  for (const Buffer& m : m_) sum += 2 * m.bytes();
  return sum;
}

void AdamWOptimizer::step(double lr, std::int64_t update, double grad_scale) const {
  const auto t = static_cast<double>(update);
  AdamWStep numbers{.lr = static_cast<float>(lr),
                    .beta1 = static_cast<float>(config_.beta1),
                    .beta2 = static_cast<float>(config_.beta2),
                    .eps = static_cast<float>(config_.eps),
                    .bias_correction1 = static_cast<float>(1 - std::pow(config_.beta1, t)),
                    .bias_correction2 = static_cast<float>(1 - std::pow(config_.beta2, t)),
                    .grad_scale = static_cast<float>(grad_scale)};
  ZeroStore& store = parameters_.store();
  for (const Parameters::Entry& entry : parameters_.entries()) {
    const Parameters::Stretch mine = parameters_.owned(entry);
    if (mine.count == 0) continue;
    const auto part = [&](const Tensor& unit) {
      return unit.present() ? unit.slice(mine.offset, mine.count) : Tensor();
    };
    numbers.weight_decay = decays(entry.spec) ? static_cast<float>(config_.weight_decay) : 0.0f;
    adamw(parameters_.stream(), part(store.owned_value(entry.unit)),
          part(store.owned_rest(entry.unit)), m(entry, mine), v(entry, mine),
          parameters_.gradient(entry, mine), numbers);
  }
  parameters_.publish();
}

double clip_factor(double norm, double limit) {
  return limit > 0 ? std::min(1.0, limit / (norm + 1e-6)) : 1.0;
}

}  // namespace jamba

#include "trainer/model/initialize.h"

#include <cmath>
#include <functional>

#include "kernels/core/parallel.h"
#include "kernels/core/rng.h"
#include "trainer/model/masters.h"

namespace jamba {

namespace {

constexpr double kDtMin = 1e-3;
constexpr double kDtMax = 0.1;

/// softplus^-1 of a step size drawn log-uniformly from [kDtMin, kDtMax].
double inverse_softplus_dt(double uniform) {
  const double dt = std::exp(std::log(kDtMin) + uniform * (std::log(kDtMax) - std::log(kDtMin)));
  return dt + std::log(-std::expm1(-dt));
}

using Draw = std::function<double(const CounterRng&, std::int64_t)>;

Draw normal(double deviation) {
  return [=](const CounterRng& rng, std::int64_t i) { return deviation * rng.normal(i); };
}
Draw uniform(double bound) {
  return [=](const CounterRng& rng, std::int64_t i) { return bound * (2 * rng.uniform(i) - 1); };
}
Draw constant(double value) {
  return [=](const CounterRng&, std::int64_t) { return value; };
}

Draw draw_for(const ParameterSpec& spec, const ModelConfig& c) {
  const bool original = c.init == InitKind::mamba;
  const auto fan_in = static_cast<double>(spec.shape.back());
  switch (spec.init) {
    case InitRule::normal:
    case InitRule::embedding:
      return normal(c.initializer_range);
    case InitRule::zeros:
      return constant(0);
    case InitRule::ones:
      return constant(1);
    case InitRule::a_log: {
      const std::int64_t state = c.mamba_d_state;
      return [=](const CounterRng&, std::int64_t i) {
        return std::log(static_cast<double>(i % state + 1));
      };
    }
    case InitRule::conv:  // fan-in of a depthwise tap is the kernel, for the bias too
      return original ? uniform(1 / std::sqrt(static_cast<double>(c.mamba_d_conv)))
                      : normal(c.initializer_range);
    case InitRule::dt_weight:
      return original ? uniform(1 / std::sqrt(fan_in)) : normal(c.initializer_range);
    case InitRule::dt_bias:
      if (!original) return constant(0);
      return
          [](const CounterRng& rng, std::int64_t i) { return inverse_softplus_dt(rng.uniform(i)); };
    case InitRule::mamba_linear:
      return original ? uniform(1 / std::sqrt(fan_in)) : normal(c.initializer_range);
    case InitRule::mamba_out:
      return original ? uniform(1 / std::sqrt(fan_in * static_cast<double>(c.num_hidden_layers)))
                      : normal(c.initializer_range);
  }
  throw LogicError("draw_for: not an InitRule");
}

}  // namespace

void initialize(Stream& stream, const Parameters& parameters, const ModelConfig& config,
                std::uint64_t seed) {
  constexpr std::int64_t kBlock = 1 << 14;
  const Masters masters(stream, parameters);
  for (const Parameters::Entry& entry : parameters.entries()) {
    const CounterRng rng(seed, entry.spec.name);
    const Draw draw = draw_for(entry.spec, config);
    float* out = masters.of(entry).ptr<float>();
    parallel_blocks(stream, entry.spec.numel(), kBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        out[i] = static_cast<float>(draw(rng, i));
      }
    });
    if (entry.spec.init == InitRule::embedding && config.pad_token_id >= 0) {
      float* row = out + config.pad_token_id * config.hidden_size;
      std::fill(row, row + config.hidden_size, 0.0f);
    }
  }
}

}  // namespace jamba

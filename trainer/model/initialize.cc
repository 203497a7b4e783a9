#include "trainer/model/initialize.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/core/host_view.h"
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
      return normal(c.initializer_range);
    case InitRule::embedding: {
      const Draw draw = normal(c.initializer_range);
      const std::int64_t pad = c.pad_token_id, hidden = c.hidden_size;
      return [=](const CounterRng& rng, std::int64_t i) {
        return i / hidden == pad ? 0.0 : draw(rng, i);
      };
    }
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

/// Draws the stretch [begin, end) of an entry, whose first element goes to out[0].
void draw_stretch(Stream& stream, const Parameters::Entry& entry, const Parameters::Stretch& mine,
                  const Draw& draw, const CounterRng& rng, float* out) {
  constexpr std::int64_t kBlock = 1 << 14;
  const std::int64_t end = mine.begin + mine.count;
  for_each_run(entry.spec.shape, entry.shard,
               [&](std::int64_t local, std::int64_t global, std::int64_t count) {
                 const std::int64_t first = std::max(local, mine.begin);
                 const std::int64_t last = std::min(local + count, end);
                 if (first >= last) return;
                 float* to = out + (first - mine.begin);
                 const std::int64_t from = global + (first - local);
                 parallel_blocks(stream, last - first, kBlock,
                                 [&](std::int64_t block, std::int64_t block_end) {
                                   for (std::int64_t i = block; i < block_end; ++i) {
                                     to[i] = static_cast<float>(draw(rng, from + i));
                                   }
                                 });
               });
}

}  // namespace

void initialize(Parameters& parameters, const ModelConfig& config, std::uint64_t seed) {
  {
    const Masters masters(parameters, Masters::Access::write);
    for (const Parameters::Entry& entry : parameters.entries()) {
      const Parameters::Stretch mine = parameters.owned(entry);
      if (mine.count == 0) continue;
      const CounterRng rng(seed, entry.spec.name);
      const HostView to(parameters.stream(), masters.of(entry, mine), HostAccess::write);
      draw_stretch(parameters.stream(), entry, mine, draw_for(entry.spec, config), rng,
                   to.ptr<float>());
      to.store();
    }
  }
  parameters.publish();
}

}  // namespace jamba

#include "trainer/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/host_view.h"
#include "kernels/core/rng.h"
#include "kernels/pointwise/pointwise.h"

namespace jamba {

namespace {

/// Prompt tokens that run at once: bounds the [tokens, vocab] logits.
constexpr std::int64_t kPromptChunk = 256;

}  // namespace

std::int64_t sample_token(std::span<const float> logits, const SamplingConfig& config,
                          std::uint64_t draw) {
  if (config.temperature <= 0) {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }
  std::vector<std::int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (config.top_k > 0 && config.top_k < static_cast<std::int64_t>(order.size())) {
    order.resize(static_cast<std::size_t>(config.top_k));
  }
  const double top = static_cast<double>(logits[static_cast<std::size_t>(order.front())]);
  std::vector<double> weight;
  double total = 0;
  for (const std::int64_t i : order) {
    const double logit = static_cast<double>(logits[static_cast<std::size_t>(i)]);
    weight.push_back(std::exp((logit - top) / config.temperature));
    total += weight.back();
  }
  double kept = 0;
  std::size_t count = 0;
  while (count < weight.size() && (count == 0 || kept < config.top_p * total)) {
    kept += weight[count++];
  }
  double target = CounterRng(config.seed, "sample").uniform(draw) * kept;
  for (std::size_t i = 0; i < count; ++i) {
    target -= weight[i];
    if (target < 0) return order[i];
  }
  return order[count - 1];
}

Generator::Generator(Workspace& workspace, const JambaModel& model, DType compute_dtype,
                     std::int64_t capacity)
    : workspace_(workspace),
      model_(model),
      dtype_(compute_dtype),
      state_memory_(workspace.stream().device()),
      states_(model.make_states(workspace.stream(), state_memory_, capacity)),
      logits_(static_cast<std::size_t>(model.config().vocab_size)) {}

std::span<const float> Generator::feed(std::span<const std::int32_t> ids) {
  JAMBA_CHECK(!ids.empty(), "no tokens");
  for (std::size_t at = 0; at < ids.size(); at += kPromptChunk) {
    run_chunk(ids.subspan(at, std::min<std::size_t>(kPromptChunk, ids.size() - at)));
  }
  return logits_;
}

void Generator::run_chunk(std::span<const std::int32_t> ids) {
  const auto n = static_cast<std::int64_t>(ids.size());
  workspace_.reset();
  const Context ctx = workspace_.context();
  Microbatch batch;
  batch.ids = ctx.activation(DType::i32, {1, n});
  batch.sequences = {1, n, {}, ctx.activation(DType::i32, {n}), n, {}};
  const HostView inputs(ctx.stream, batch.ids, HostAccess::write);
  const HostView positions(ctx.stream, batch.sequences.positions, HostAccess::write);
  for (std::int64_t t = 0; t < n; ++t) {
    inputs.ptr<std::int32_t>()[t] = ids[static_cast<std::size_t>(t)];
    positions.ptr<std::int32_t>()[t] = static_cast<std::int32_t>(position_ + t);
  }
  inputs.store();
  positions.store();
  const std::int64_t vocab = model_.config().vocab_size;
  const Tensor logits = ctx.activation(dtype_, {n, vocab});
  model_.infer(ctx, logits, batch, states_);
  const Tensor last = ctx.activation(DType::f32, {vocab});
  cast(ctx.stream, last, logits.slice(n - 1, 1).view({vocab}));
  copy(ctx.stream, Tensor(logits_.data(), DType::f32, {vocab}), last);
  position_ += n;
}

void generate(Generator& generator, std::span<const std::int32_t> prompt,
              const SamplingConfig& config, const std::function<bool(std::int64_t)>& stop,
              const std::function<void(std::int64_t)>& on_token) {
  std::span<const float> logits = generator.feed(prompt);
  for (std::int64_t i = 0; i < config.max_new_tokens; ++i) {
    const std::int64_t token = sample_token(logits, config, static_cast<std::uint64_t>(i));
    if (stop(token)) return;
    on_token(token);
    const auto next = static_cast<std::int32_t>(token);
    if (i + 1 < config.max_new_tokens) logits = generator.feed({&next, 1});
  }
}

}  // namespace jamba

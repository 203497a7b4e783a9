// jamba bench MODEL.yaml [--seq-len N] [--batch N] [--steps N] [--dtype float32|bfloat16]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/core/rng.h"
#include "kernels/linear/peak_rate.h"
#include "parallel/comm/thread_group.h"
#include "trainer/app/command.h"
#include "trainer/config/config.h"
#include "trainer/metrics/peak_memory.h"
#include "trainer/model/initialize.h"
#include "trainer/train_step.h"

namespace jamba {

namespace {

struct Options {
  std::string model, dtype = "float32";
  std::int64_t seq_len = 256, batch = 4, steps = 5, warmup = 2;
  bool recompute = false;
  int threads = 0;
};

/// Made-up tokens that can be learned: each follows from the one before by a fixed shuffle.
class ChainedTokens : public TokenSource {
 public:
  explicit ChainedTokens(std::int64_t vocab) : successor_(static_cast<std::size_t>(vocab)) {
    const CounterRng rng(1, "chain");
    for (std::size_t i = 0; i < successor_.size(); ++i)
      successor_[i] = static_cast<std::int32_t>(i);
    for (std::size_t i = successor_.size() - 1; i > 0; --i) {
      std::swap(successor_[i],
                successor_[static_cast<std::size_t>(rng.below(i, static_cast<std::int64_t>(i)))]);
    }
  }

  std::int64_t fill(std::int64_t step, std::int64_t micro_index, const Batch& out) override {
    const std::int64_t seq = out.ids.dim(1), sequences = out.ids.dim(0);
    const CounterRng rng(2, static_cast<std::uint64_t>(step * 4096 + micro_index));
    for (std::int64_t s = 0; s < sequences; ++s) {
      auto token = static_cast<std::int32_t>(
          rng.below(static_cast<std::uint64_t>(s), static_cast<std::int64_t>(successor_.size())));
      for (std::int64_t t = s * seq; t < (s + 1) * seq; ++t) {
        out.ids.ptr<std::int32_t>()[t] = token;
        token = successor_[static_cast<std::size_t>(token)];
        out.labels.ptr<std::int32_t>()[t] = token;
        out.doc_start.ptr<std::int32_t>()[t] = 0;
      }
    }
    return out.ids.numel();
  }

 private:
  std::vector<std::int32_t> successor_;
};

RunConfig run_config(const Options& options) {
  RunConfig c;
  c.model = load_model_config(options.model);
  c.data.seq_len = options.seq_len;
  c.train.steps = options.steps + options.warmup;
  c.train.micro_batch_size = options.batch;
  c.train.global_batch_size = options.batch;
  c.train.dtype = options.dtype == "bfloat16" ? DType::bf16 : DType::f32;
  c.train.recompute = options.recompute ? Recompute::block : Recompute::none;
  c.optimizer.lr = 1e-3;
  c.optimizer.schedule = ScheduleKind::constant;
  return c;
}

int run(const Options& options) {
  const RunConfig config = run_config(options);
  Stream stream = Stream::cpu(options.threads);
  const double peak = measure_peak_gflops(stream, config.train.dtype);
  const std::unique_ptr<Communicator> alone = make_single_rank();
  const Parameters parameters(config.model, config.train.dtype, Gradients::allocate);
  initialize(stream, parameters, config.model, config.train.seed);
  const JambaModel model(config.model, parameters);
  const AdamWOptimizer optimizer(parameters, config.optimizer);
  Workspace workspace(stream);
  TrainStep step(config, *alone, workspace, parameters, model, optimizer);
  ChainedTokens tokens(config.model.vocab_size);

  std::vector<std::pair<double, Profile>> timed;
  double loss_first = 0, loss_last = 0;
  for (std::int64_t i = 0; i < config.train.steps; ++i) {
    stream.profile().reset();
    const auto begin = std::chrono::steady_clock::now();
    loss_last = step.run(tokens, i, false).lm_loss;
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (i == 0) loss_first = loss_last;
    if (i >= options.warmup) timed.emplace_back(seconds, stream.profile());
  }
  std::sort(timed.begin(), timed.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto& [seconds, profile] = timed[timed.size() / 2];  // the median step and its parts

  const double tokens_per_s = static_cast<double>(options.batch * options.seq_len) / seconds;
  const double flops = train_flops_per_token(config.model, options.seq_len);
  const ParameterCount count = count_parameters(config.model);
  nlohmann::ordered_json out = {
      {"tokens_per_s", tokens_per_s},
      {"step_s", seconds},
      {"peak_rss_gib", static_cast<double>(peak_memory_bytes()) / (1 << 30)},
      {"model_flops_per_token", flops},
      {"peak_gflops", peak},
      {"share_of_peak", flops * tokens_per_s / (peak * 1e9)},
      {"loss_first", loss_first},
      {"loss_last", loss_last},
      {"params", count.total},
      {"active_params", count.active},
      {"threads", stream.num_threads()},
      {"dtype", options.dtype}};
  double known = 0;
  for (int p = 0; p < kNumParts; ++p) {
    if (static_cast<Part>(p) == Part::rest) continue;
    const double part = profile.seconds[static_cast<std::size_t>(p)];
    out["seconds"][part_name(static_cast<Part>(p))] = part;
    known += part;
  }
  out["seconds"]["rest"] = seconds - known;
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace

void declare_bench(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  app.add_option("model", options->model, "Model config, YAML")->required();
  app.add_option("--seq-len", options->seq_len, "Tokens a sequence")->capture_default_str();
  app.add_option("--batch", options->batch, "Sequences a step")->capture_default_str();
  app.add_option("--steps", options->steps, "Timed steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--warmup", options->warmup, "Steps before those")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--dtype", options->dtype, "Storage of weights and activations")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  app.add_flag("--recompute", options->recompute, "Recompute each layer in backward");
  app.add_option("--threads", options->threads, "OpenMP threads (default: all)");
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

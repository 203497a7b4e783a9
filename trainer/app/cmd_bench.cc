// jamba bench MODEL.yaml [--seq-len N] [--batch N] [--steps N] [--dtype float32|bfloat16]

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/core/clock.h"
#include "kernels/core/device_times.h"
#include "kernels/core/rng.h"
#include "kernels/core/trace.h"
#include "kernels/linear/peak_rate.h"
#include "trainer/app/command.h"
#include "trainer/app/device_choice.h"
#include "trainer/app/mpi_command.h"
#include "trainer/checkpoint/agreed.h"
#include "trainer/config/config.h"
#include "trainer/metrics/peak_memory.h"
#include "trainer/model/initialize.h"
#include "trainer/parallel_rules.h"
#include "trainer/train_step.h"

namespace jamba {

namespace {

struct Options {
  std::string model, dtype = "float32";
  std::vector<std::string> settings;
  std::int64_t seq_len = 256, batch = 4, micro = 0, steps = 5, warmup = 2;
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

  std::int64_t fill(std::int64_t step, std::int64_t micro, const Batch& out) override {
    const std::int64_t seq = out.ids.dim(1), sequences = out.ids.dim(0);
    const CounterRng rng(2, static_cast<std::uint64_t>(step * 4096 + micro));
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

RunConfig run_config(const Options& options, Communicator& world) {
  RunConfig c;
  c.model = load_model_config(options.model);
  c.data.seq_len = options.seq_len;
  c.train.steps = options.steps + options.warmup;
  c.train.dtype = options.dtype == "bfloat16" ? DType::bf16 : DType::f32;
  c.train.recompute = options.recompute ? Recompute::block : Recompute::none;
  c.optimizer.lr = 1e-3;
  c.optimizer.schedule = ScheduleKind::constant;
  c = with_overrides(c, options.settings);
  const ParallelConfig& p = c.parallel;
  const std::int64_t dp = std::max<std::int64_t>(1, world.size() / (p.tp * p.pp * p.cp));
  c.train.global_batch_size = options.batch;
  c.train.micro_batch_size =
      options.micro > 0 ? options.micro : std::max<std::int64_t>(1, options.batch / dp);
  expect_sound_parallel(c, world.size());
  return c;
}

/// One timed step.
struct Timed {
  double seconds;
  Profile profile;
  double exposed;  // share of the step that rank 0 was blocked in communication
};

/// A step with its parts timed on the device, where blocked is what a stream waits for.
template <class Step>
Timed time_on_device(Stream& stream, Step&& step) {
  stream.profile().reset();
  begin_device_times(stream);
  const Clock::time_point begin = Clock::now();
  step();
  end_device_times(stream);
  const double seconds = seconds_since(begin);
  return {seconds, stream.profile(), stream.profile()[Part::communication] / seconds};
}

nlohmann::ordered_json traffic_a_step(const Mesh& mesh, const std::vector<Mesh::Traffic>& before,
                                      std::int64_t steps) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  const std::vector<Mesh::Traffic> now = mesh.traffic();
  for (std::size_t i = 0; i < now.size(); ++i) {
    out[now[i].axis] = (now[i].bytes - before[i].bytes) / steps;
  }
  return out;
}

int run_ranks(const Options& options, MpiSession& mpi) {
  Communicator& world = mpi.world();
  RunConfig config;
  agreed(world, [&] { config = run_config(options, world); });
  const ChosenDevice chosen = choose_device(config.train.device, mpi);
  Stream stream = make_stream(chosen, options.threads, mpi.local_size());
  const double peak = measure_peak_gflops(stream, config.train.dtype);
  const Mesh mesh = make_mesh(config, world);
  RankModel rank(config, mesh, stream);
  initialize(rank.parameters(), config.model, config.train.seed);
  TrainStep step(config, stream, rank);
  ChainedTokens tokens(config.model.vocab_size);

  constexpr std::size_t kMaxEvents = 1'000'000;
  Trace trace(kMaxEvents);
  std::vector<Timed> timed;
  std::vector<Mesh::Traffic> sent;
  double loss_first = 0, loss_last = 0;
  for (std::int64_t i = 0; i < config.train.steps; ++i) {
    stream.profile().reset();
    if (i == options.warmup) {
      stream.profile().trace = &trace;
      sent = mesh.traffic();
    }
    world.barrier();
    const std::int64_t begin = Trace::now_ns();
    loss_last = step.run(tokens, i, false).losses.lm;
    const std::int64_t end = Trace::now_ns();
    if (i == 0) loss_first = loss_last;
    if (i < options.warmup) continue;
    timed.push_back({static_cast<double>(end - begin) * 1e-9, stream.profile(),
                     exposed_communication(trace, begin, end)});
  }
  stream.profile().trace = nullptr;
  std::sort(timed.begin(), timed.end(),
            [](const Timed& a, const Timed& b) { return a.seconds < b.seconds; });
  const Timed& median = timed[timed.size() / 2];
  const double seconds = median.seconds;
  const nlohmann::ordered_json traffic = traffic_a_step(mesh, sent, options.steps);
  // On a device in a step of its own, since that costs time.
  const Timed parts =
      stream.device().kind == DeviceKind::cuda
          ? time_on_device(stream, [&] { step.run(tokens, config.train.steps, false); })
          : median;

  const double tokens_per_s = static_cast<double>(options.batch * options.seq_len) / seconds;
  const double flops = train_flops_per_token(config.model, options.seq_len);
  const ParameterCount count = count_parameters(config.model);
  std::array<std::int64_t, 2> memory = {peak_memory_bytes(), peak_device_bytes()};
  world.all_reduce(stream, Tensor(memory.data(), DType::i64, {2}), ReduceOp::max);
  nlohmann::ordered_json out = {
      {"tokens_per_s", tokens_per_s},
      {"step_s", seconds},
      {"peak_rss_gib", static_cast<double>(memory[0]) / (1 << 30)},
      {"peak_device_gib", static_cast<double>(memory[1]) / (1 << 30)},
      {"model_flops_per_token", flops},
      {"peak_gflops", peak},
      {"share_of_peak", flops * tokens_per_s / (peak * world.size() * 1e9)},
      {"loss_first", loss_first},
      {"loss_last", loss_last},
      {"params", count.total},
      {"active_params", count.active},
      {"ranks", world.size()},
      {"device", chosen.words},
      {"threads", stream.num_threads()},
      {"dtype", options.dtype},
      {"exposed_communication", parts.exposed},
      {"sent_bytes", traffic}};
  double known = 0;
  for (int p = 0; p < kNumParts; ++p) {
    if (static_cast<Part>(p) == Part::rest) continue;
    const double part = parts.profile.seconds[static_cast<std::size_t>(p)];
    out["seconds"][part_name(static_cast<Part>(p))] = part;
    known += part;
  }
  out["seconds"]["rest"] = parts.seconds - known;
  if (world.rank() == 0) std::printf("%s\n", out.dump().c_str());
  return 0;
}

int run(const Options& options) {
  return run_under_mpi("bench", [&](MpiSession& mpi) { return run_ranks(options, mpi); });
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
  app.add_option("--micro", options->micro, "Sequences in a microbatch (default: one microbatch)");
  app.add_option("settings", options->settings, "Such as parallel.tp=2");
  app.add_flag("--recompute", options->recompute, "Recompute each layer in backward");
  app.add_option("--threads", options->threads, "OpenMP threads (default: all)");
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

// jamba demo: text, training and a sample, without data or network, in under a minute

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/prepare.h"
#include "parallel/comm/thread_group.h"
#include "trainer/app/command.h"
#include "trainer/app/demo_text.h"
#include "trainer/app/device_choice.h"
#include "trainer/app/sample_text.h"
#include "trainer/app/stop_signal.h"
#include "trainer/loaded_model.h"
#include "trainer/training_run.h"

namespace jamba {

namespace {

struct Options {
  std::string run_dir = "runs/demo";
  std::int64_t steps = 150;
};

constexpr std::uint64_t kStories = 1500;

/// Writes the stories and their token stores, once.
void write_data(const std::string& dir, const Tokenizer& tokenizer) {
  if (std::filesystem::exists(dir + "/stories.train.h5")) return;
  std::filesystem::create_directories(dir);
  const std::string path = dir + "/stories.jsonl";
  std::ofstream out(path);
  for (std::uint64_t i = 0; i < kStories; ++i) {
    out << nlohmann::json{{"text", demo_story(i)}}.dump() << "\n";
  }
  out.close();
  if (!out) throw IoError(fmt::format("{}: cannot write", path));
  prepare_stores(
      {.inputs = {path}, .output_dir = dir, .name = "stories", .validation_fraction = 0.02},
      tokenizer);
}

RunConfig demo_config(const Options& options, const Tokenizer& tokenizer) {
  RunConfig c;
  c.run_dir = options.run_dir;
  c.model.vocab_size = tokenizer.vocab_size();
  c.model.hidden_size = 96;
  c.model.intermediate_size = 192;
  c.model.num_hidden_layers = 8;
  c.model.num_attention_heads = 3;
  c.model.num_key_value_heads = 1;
  c.model.num_experts = 8;
  c.model.router_aux_loss_coef = 0.01;
  c.model.init = InitKind::mamba;
  const std::string data = options.run_dir + "/data/stories.";
  c.data.sources = {{"stories", data + "train.h5", data + "validation.h5", 1.0}};
  c.data.tokenizer = "bytes";
  c.data.seq_len = 256;
  c.train.steps = options.steps;
  c.train.micro_batch_size = 4;
  c.train.global_batch_size = 4;
  c.optimizer.lr = 4e-3;
  c.optimizer.min_lr = 4e-4;
  c.optimizer.warmup_steps = std::min<std::int64_t>(10, options.steps);
  c.log.every = 10;
  return c;
}

int run(const Options& options) {
  const std::atomic<bool>& stop = catch_stop_signals();
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer("bytes");
  write_data(options.run_dir + "/data", *tokenizer);
  const RunConfig config = demo_config(options, *tokenizer);
  const std::unique_ptr<Communicator> alone = make_single_rank();
  const ChosenDevice chosen = choose_device(DeviceChoice::automatic);
  Stream stream = make_stream(chosen, 0);
  const LaunchInfo launch{.device = chosen.words};
  const ExitCode code = TrainingRun(config, *alone, stream, stop, launch).run();
  if (code != ExitCode::ok) return static_cast<int>(code);

  const std::string checkpoints = options.run_dir + "/checkpoints";
  const LoadedModel loaded(stream, checkpoints, DType::f32);
  Workspace workspace(stream, loaded.mesh());
  const std::string prompt = "Once there was a ";
  std::printf("\n%s%s\n\n", prompt.c_str(),
              sample_text(workspace, loaded.model(), loaded.compute_dtype(), *tokenizer, prompt,
                          {.max_new_tokens = 300, .temperature = 0.5})
                  .c_str());
  std::printf("next: jamba generate --checkpoint %s --prompt \"Mira came to \"\n",
              checkpoints.c_str());
  return 0;
}

}  // namespace

void declare_demo(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  app.add_option("--run-dir", options->run_dir, "Where the run goes")->capture_default_str();
  app.add_option("--steps", options->steps, "Training steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

// jamba generate --checkpoint DIR [--prompt TEXT] [--max-new-tokens N] ...

#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "trainer/app/command.h"
#include "trainer/app/device_choice.h"
#include "trainer/app/sample_text.h"
#include "trainer/loaded_model.h"

namespace jamba {

namespace {

struct Options {
  std::string checkpoint, prompt;
  SamplingConfig sampling;
  DeviceOptions device;
};

int run(const Options& options) {
  Stream stream = make_stream(choose_device(options.device.choice), options.device.threads);
  const LoadedModel loaded(stream, options.checkpoint, DType::f32);
  const std::unique_ptr<Tokenizer> tokenizer = loaded.tokenizer();
  Workspace workspace(stream, loaded.mesh());
  std::cout << options.prompt
            << sample_text(workspace, loaded.model(), loaded.compute_dtype(), *tokenizer,
                           options.prompt, options.sampling)
            << '\n';
  return 0;
}

}  // namespace

void declare_generate(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  SamplingConfig& s = options->sampling;
  app.add_option("--checkpoint", options->checkpoint, "Checkpoint or run directory")->required();
  app.add_option("--prompt", options->prompt, "Text to continue");
  app.add_option("--max-new-tokens", s.max_new_tokens, "Most tokens to sample")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--temperature", s.temperature, "0 takes the most probable token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--top-k", s.top_k, "Sample among the k most probable; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-p", s.top_p, "Sample among the smallest set of this probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--seed", s.seed, "Same seed, same text")->capture_default_str();
  declare_device(app, options->device);
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

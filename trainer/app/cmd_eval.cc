// jamba eval --checkpoint DIR --data STORE.h5 [--data ...] [--seq-len N]

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "trainer/app/command.h"
#include "trainer/app/device_choice.h"
#include "trainer/evaluate.h"
#include "trainer/loaded_model.h"
#include "trainer/metrics/format.h"

namespace jamba {

namespace {

struct Options {
  std::string checkpoint;
  std::vector<std::string> stores;
  std::int64_t seq_len = 512, batch = 4, max_tokens = 0;
  bool leak_across_documents = false;
  DeviceOptions device;
};

int run(const Options& options) {
  Stream stream = make_stream(choose_device(options.device.choice), options.device.threads);
  LoadedModel loaded(stream, options.checkpoint, DType::f32);
  DataConfig data;
  data.seq_len = options.seq_len;
  data.reset_at_documents = !options.leak_across_documents;
  for (const std::string& store : options.stores) {
    data.sources.push_back({std::filesystem::path(store).stem().string(), "", store, 0.0});
  }
  Evaluator evaluator(loaded.mesh(), stream, data, loaded.model().config(), options.batch,
                      options.max_tokens);
  StageRunner runner(loaded.mesh(), stream, loaded.parameters(), {&loaded.model(), 1},
                     Recomputation::on);
  const EvalRecord record = evaluator.run(stream, runner, loaded.manifest().info.step);
  std::printf("%s\n", eval_line(record).c_str());
  return 0;
}

}  // namespace

void declare_eval(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  app.add_option("--checkpoint", options->checkpoint, "Checkpoint or run directory")->required();
  app.add_option("--data", options->stores, "Token stores")->required();
  app.add_option("--seq-len", options->seq_len, "Tokens a sequence")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch", options->batch, "Sequences in one forward")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-tokens", options->max_tokens, "Of each store; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--no-reset", options->leak_across_documents,
               "Let attention and state run on across documents of one sequence");
  declare_device(app, options->device);
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

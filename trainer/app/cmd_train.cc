// jamba train CONFIG.yaml [key.path=value ...]      under scripts/launch -n N

#include <memory>
#include <string>
#include <vector>

#include "trainer/app/command.h"
#include "trainer/app/device_choice.h"
#include "trainer/app/launch_check.h"
#include "trainer/app/mpi_command.h"
#include "trainer/app/stop_signal.h"
#include "trainer/checkpoint/agreed.h"
#include "trainer/config/config.h"
#include "trainer/training_run.h"

namespace jamba {

namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  std::string trace;
};

/// Reads the config; nothing else may fail before all ranks agree that it is sound.
RunConfig read_config(const Options& options, Communicator& world) {
  RunConfig config;
  agreed(world, [&] {
    check_launcher(world.size());
    config = load_run_config(options.config, options.overrides, world.size());
    if (config.train.global_batch_size == 0) {
      const ParallelConfig& p = config.parallel;
      config.train.global_batch_size =
          config.train.micro_batch_size * (world.size() / (p.tp * p.pp * p.cp));
    }
  });
  return config;
}

int run(const Options& options) {
  const std::atomic<bool>& stop = catch_stop_signals();
  return run_under_mpi("train", [&](MpiSession& mpi) {
    const RunConfig config = read_config(options, mpi.world());
    mpi.world().set_guards({.compare_calls = config.parallel.check_collectives,
                            .timeout_seconds = config.parallel.timeout_seconds});
    const ChosenDevice chosen = choose_device(config.train.device, mpi);
    Stream stream = make_stream(chosen, static_cast<int>(config.train.threads), mpi.local_size());
    const LaunchInfo launch{mpi.local_size(), chosen.words, options.trace};
    return static_cast<int>(TrainingRun(config, mpi.world(), stream, stop, launch).run());
  });
}

}  // namespace

void declare_train(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  app.add_option("config", options->config, "Run config, YAML")->required();
  app.add_option("overrides", options->overrides, "key.path=value, such as train.steps=100");
  app.add_option("--trace", options->trace,
                 "Write what all ranks did in two warm steps, for chrome://tracing or Perfetto");
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

// jamba train CONFIG.yaml [key.path=value ...]      under scripts/launch -n N

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/mpi_session.h"
#include "trainer/app/command.h"
#include "trainer/app/launch_check.h"
#include "trainer/app/stop_signal.h"
#include "trainer/app/threads.h"
#include "trainer/checkpoint/agreed.h"
#include "trainer/config/config.h"
#include "trainer/training_run.h"

namespace jamba {

namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
};

/// Ends the job with this error's exit code. An error of all ranks is said once; any other may
/// leave peers blocked in a collective that this rank will not reach, so it ends them too.
int fail(MpiSession& mpi, const Error& e) {
  Communicator& world = mpi.world();
  if (e.on_all_ranks()) {
    if (world.rank() == 0) std::fprintf(stderr, "jamba train: %s\n", e.what());
    return static_cast<int>(e.exit_code());
  }
  std::fprintf(stderr, "jamba train: rank %d of %d: %s\n", world.rank(), world.size(), e.what());
  mpi.abort(static_cast<int>(e.exit_code()));
}

/// Reads the config; nothing else may fail before all ranks agree that it is sound.
RunConfig read_config(const Options& options, Communicator& world) {
  RunConfig config;
  agreed(world, [&] {
    check_launcher(world.size());
    config = load_run_config(options.config, options.overrides, world.size());
    if (config.train.global_batch_size == 0) {
      config.train.global_batch_size = config.train.micro_batch_size * world.size();
    }
  });
  return config;
}

int run(const Options& options) {
  const std::atomic<bool>& stop = catch_stop_signals();
  int argc = 0;
  char** argv = nullptr;
  MpiSession mpi(argc, argv);
  Communicator& world = mpi.world();

  try {
    const RunConfig config = read_config(options, world);
    Stream stream =
        Stream::cpu(threads_per_rank(static_cast<int>(config.train.threads), mpi.local_size()));
    return static_cast<int>(TrainingRun(config, world, stream, stop).run());
  } catch (const Error& e) {
    return fail(mpi, e);
  }
}

}  // namespace

void declare_train(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  app.add_option("config", options->config, "Run config, YAML")->required();
  app.add_option("overrides", options->overrides, "key.path=value, such as train.steps=100");
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

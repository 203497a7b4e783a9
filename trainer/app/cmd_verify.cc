// jamba verify FIXTURE_DIR [--dump OUT.safetensors] [parallel.tp=2 ...]

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/app/command.h"
#include "trainer/app/device_choice.h"
#include "trainer/app/mpi_command.h"
#include "trainer/checkpoint/agreed.h"
#include "trainer/config/config.h"
#include "trainer/verify/verify.h"

namespace jamba {

namespace {

struct Options {
  std::string fixture;
  std::string dump;
  std::vector<std::string> overrides;
  int threads = 0;
};

/// Settings of how to run the fixture, as in a run's config.
VerifyOptions parse_overrides(const std::vector<std::string>& overrides, const ModelConfig& model) {
  for (const std::string& text : overrides) {
    const bool known = text.starts_with("train.dtype=") || text.starts_with("train.recompute=") ||
                       text.starts_with("train.device=") || text.starts_with("parallel.");
    if (known) continue;
    throw ConfigError(fmt::format(
        "{}: the fixture decides all but train.dtype, train.recompute, train.device and parallel.*",
        text));
  }
  RunConfig defaults;
  defaults.model = model;
  const RunConfig run = with_overrides(defaults, overrides);
  VerifyOptions out{.dtype = run.train.dtype,
                    .recompute = run.train.recompute,
                    .device = run.train.device,
                    .parallel = run.parallel};
  // Storage rounds at 2^-9; gradients of small tensors gather a few percent.
  if (out.dtype == DType::bf16) out.tolerance = 0.1;
  return out;
}

void print_report(const std::vector<TensorError>& errors) {
  std::map<std::string, const TensorError*> worst;
  for (const TensorError& e : errors) {
    if (!e.ok()) {
      std::printf("FAIL %-70s error %.3e above %.1e\n", e.name.c_str(), e.error, e.tolerance);
    }
    const TensorError*& w = worst[e.kind];
    if (w == nullptr || !(e.error <= w->error)) w = &e;
  }
  std::printf("%-16s %6s  %-10s %s\n", "kind", "count", "worst", "tensor");
  for (const auto& [kind, e] : worst) {
    const auto count = std::count_if(errors.begin(), errors.end(),
                                     [&kind = kind](const auto& x) { return x.kind == kind; });
    std::printf("%-16s %6td  %.3e  %s\n", kind.c_str(), count, e->error, e->name.c_str());
  }
}

int run(const Options& options) {
  return run_under_mpi("verify", [&](MpiSession& mpi) {
    Communicator& world = mpi.world();
    std::optional<Fixture> fixture;
    VerifyOptions verify_options;
    agreed(world, [&] {
      fixture.emplace(options.fixture);
      verify_options = parse_overrides(options.overrides, fixture->config());
    });
    world.set_guards({.compare_calls = true, .timeout_seconds = 300});
    const ChosenDevice chosen = choose_device(verify_options.device, mpi);
    Stream stream = make_stream(chosen, options.threads, mpi.local_size());
    Comparison comparison(fixture->expected());
    verify(world, stream, *fixture, verify_options, comparison);
    agreed(world, [&] {
      if (world.rank() == 0 && !options.dump.empty()) comparison.dump(options.dump);
    });
    const bool ok = !comparison.errors().empty() &&
                    std::all_of(comparison.errors().begin(), comparison.errors().end(),
                                [](const TensorError& e) { return e.ok(); });
    if (world.rank() == 0) {
      print_report(comparison.errors());
      std::printf("%s: %zu tensors, %s\n", options.fixture.c_str(), comparison.errors().size(),
                  ok ? "all within tolerance" : "NOT within tolerance");
    }
    return static_cast<int>(ok ? ExitCode::ok : ExitCode::check_failed);
  });
}

}  // namespace

void declare_verify(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  app.add_option("fixture", options->fixture, "Directory with model, inputs and expected values")
      ->required();
  app.add_option(
      "settings", options->overrides,
      "train.dtype=bfloat16, train.recompute=block, train.device=cpu, parallel.tp=2, ...");
  app.add_option("--dump", options->dump, "Write what was computed to this safetensors file");
  app.add_option("--threads", options->threads, "OpenMP threads (default: all)");
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

// jamba verify FIXTURE_DIR [--dump OUT.safetensors] [parallel.tp=2 ...]

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "trainer/app/command.h"
#include "trainer/verify/verify.h"

namespace jamba {

namespace {

struct Options {
  std::string fixture;
  std::string dump;
  std::vector<std::string> overrides;
  int threads = 0;
};

/// "key=value" settings of how to run the fixture.
VerifyOptions parse_overrides(const std::vector<std::string>& overrides) {
  VerifyOptions out;
  for (const std::string& text : overrides) {
    if (text == "train.dtype=float32" || text == "train.recompute=none") continue;
    if (text == "train.dtype=bfloat16") {
      out.dtype = DType::bf16;
      out.tolerance =
          0.1;  // storage rounds at 2^-9; gradients of small tensors gather a few percent
    } else if (text == "train.recompute=block") {
      out.recomputation = Recomputation::on;
    } else if (text.starts_with("parallel.") && text.ends_with("=1")) {
      continue;
    } else if (text.starts_with("parallel.")) {
      throw ConfigError(fmt::format(
          "{}: only data parallelism exists so far, and a fixture runs on one rank", text));
    } else {
      throw ConfigError(fmt::format(
          "{}: unknown setting; known: train.dtype=float32|bfloat16, train.recompute=none|block, "
          "parallel.AXIS=1",
          text));
    }
  }
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
  const VerifyOptions verify_options = parse_overrides(options.overrides);
  const Fixture fixture(options.fixture);
  Stream stream = Stream::cpu(options.threads);
  Comparison comparison(fixture.expected());
  verify(stream, fixture, verify_options, comparison);
  if (!options.dump.empty()) comparison.dump(options.dump);
  print_report(comparison.errors());
  const bool ok = !comparison.errors().empty() &&
                  std::all_of(comparison.errors().begin(), comparison.errors().end(),
                              [](const TensorError& e) { return e.ok(); });
  std::printf("%s: %zu tensors, %s\n", options.fixture.c_str(), comparison.errors().size(),
              ok ? "all within tolerance" : "NOT within tolerance");
  return static_cast<int>(ok ? ExitCode::ok : ExitCode::check_failed);
}

}  // namespace

void declare_verify(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  app.add_option("fixture", options->fixture, "Directory with model, inputs and expected values")
      ->required();
  app.add_option("settings", options->overrides, "Such as train.dtype=bfloat16");
  app.add_option("--dump", options->dump, "Write what was computed to this safetensors file");
  app.add_option("--threads", options->threads, "OpenMP threads (default: all)");
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

// jamba inspect CONFIG.yaml | CHECKPOINT_DIR | RUN_DIR

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "kernels/core/errors.h"
#include "trainer/app/command.h"
#include "trainer/config/config.h"
#include "trainer/metrics/format.h"
#include "trainer/run_state.h"

namespace jamba {

namespace {

void print_line(const char* name, std::int64_t count) {
  if (count > 0) {
    std::printf("  %-12s %14lld  %s\n", name, static_cast<long long>(count),
                format_count(static_cast<double>(count)).c_str());
  }
}

void print_model(const ModelConfig& model) {
  const ParameterCount count = count_parameters(model);
  std::printf("layers  %s\n", model.layer_map().c_str());
  std::printf("        A attention, M Mamba, e followed by a mixture of %lld experts, top %lld\n",
              static_cast<long long>(model.num_experts),
              static_cast<long long>(model.num_experts_per_tok));
  std::printf("parameters\n");
  print_line("total", count.total);
  print_line("active", count.active);
  print_line("embedding", count.embedding);
  print_line("attention", count.attention);
  print_line("mamba", count.mamba);
  print_line("dense ffn", count.dense_ffn);
  print_line("experts", count.experts);
  print_line("router", count.router);
  print_line("norms", count.norms);
  std::printf("forward and backward: %s FLOPs a token at 4096 tokens a sequence\n",
              format_count(train_flops_per_token(model, 4096)).c_str());
}

int inspect_checkpoint(const std::string& path) {
  const FoundCheckpoint found = find_checkpoint(path);
  for (const std::string& reason : found.skipped) std::printf("skipped %s\n", reason.c_str());
  const CheckpointInfo& info = found.manifest.info;
  std::printf("checkpoint  %s\n", found.path.c_str());
  std::printf("step        %lld, %s tokens seen%s\n", static_cast<long long>(info.step),
              format_count(static_cast<double>(info.tokens_seen)).c_str(),
              info.weights_only ? ", weights only" : "");
  std::printf("tokenizer   %s\n",
              info.tokenizer_hash.empty() ? "none" : info.tokenizer_hash.c_str());
  std::int64_t bytes = 0;
  for (const FileRecord& file : found.manifest.files) bytes += file.bytes;
  std::printf("files       %zu, %s, %zu slices, written by %lld ranks\n",
              found.manifest.files.size(), format_bytes(bytes).c_str(),
              found.manifest.slices.size(), static_cast<long long>(found.manifest.world_size));
  print_model(info.model);
  return 0;
}

int run(const std::string& path) {
  if (!std::filesystem::exists(path)) throw NoInputError(fmt::format("{}: no such file", path));
  if (std::filesystem::is_directory(path)) return inspect_checkpoint(path);
  print_model(load_model_config(path));
  return 0;
}

}  // namespace

void declare_inspect(CLI::App& app, Action& action) {
  const auto path = std::make_shared<std::string>();
  app.add_option("path", *path, "Config file, checkpoint or run directory")->required();
  app.callback([path, &action] { action = [path] { return run(*path); }; });
}

}  // namespace jamba

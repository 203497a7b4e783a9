// jamba score --checkpoint CHECKPOINT_DIR --input in.jsonl --output out.jsonl

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "trainer/app/command.h"
#include "trainer/app/device_choice.h"
#include "trainer/loaded_model.h"
#include "trainer/score.h"

namespace jamba {

namespace {

struct Options {
  std::string checkpoint, input, output;
  DeviceOptions device;
};

/// The tokens of one line: {"ids": [...]} or {"text": "..."}; text starts with bos if there is one.
std::vector<std::int64_t> read_tokens(const nlohmann::json& line, const LoadedModel& loaded,
                                      std::unique_ptr<Tokenizer>& tokenizer) {
  if (line.is_object() && line.contains("ids")) {
    return line.at("ids").get<std::vector<std::int64_t>>();
  }
  if (!line.is_object() || !line.contains("text")) {
    throw DataError("expected an object with \"ids\" or \"text\"");
  }
  if (tokenizer == nullptr) tokenizer = loaded.tokenizer();
  std::vector<std::int64_t> ids;
  if (tokenizer->bos_id() >= 0) ids.push_back(tokenizer->bos_id());
  for (const std::int32_t id : tokenizer->encode(line.at("text").get<std::string>())) {
    ids.push_back(id);
  }
  return ids;
}

/// {"logprobs": [...]}: nine significant digits restore a float32 exactly.
std::string format_line(const std::vector<float>& logprobs) {
  std::string out = "{\"logprobs\": [";
  for (std::size_t i = 0; i < logprobs.size(); ++i) {
    if (!std::isfinite(logprobs[i])) {
      throw DataError(fmt::format("the model gives {} at token {}", logprobs[i], i + 1));
    }
    out += fmt::format("{}{:.9g}", i == 0 ? "" : ", ", logprobs[i]);
  }
  return out + "]}\n";
}

int run(const Options& options) {
  std::ifstream in(options.input);
  if (!in) throw NoInputError(fmt::format("{}: no such file", options.input));
  Stream stream = make_stream(choose_device(options.device.choice), options.device.threads);
  const LoadedModel loaded(stream, options.checkpoint, DType::f32);
  std::ofstream out(options.output, std::ios::trunc);
  if (!out) {
    throw CannotCreateError(fmt::format("{}: {}", options.output, std::strerror(errno)));
  }
  Workspace workspace(stream, loaded.mesh());
  JambaModel::Saved saved;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string text;
  for (std::int64_t number = 1; std::getline(in, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      const auto ids = read_tokens(nlohmann::json::parse(text), loaded, tokenizer);
      out << format_line(score_tokens(workspace, loaded.model(), saved, ids));
    } catch (const nlohmann::json::exception& e) {
      throw DataError(fmt::format("{}:{}: {}", options.input, number, e.what()));
    } catch (const DataError& e) {
      throw DataError(fmt::format("{}:{}: {}", options.input, number, e.what()));
    }
  }
  out.close();
  if (!out) throw IoError(fmt::format("{}: {}", options.output, std::strerror(errno)));
  return 0;
}

}  // namespace

void declare_score(CLI::App& app, Action& action) {
  const auto options = std::make_shared<Options>();
  app.add_option("--checkpoint", options->checkpoint, "Checkpoint directory")->required();
  app.add_option("--input", options->input, "JSON lines: {\"ids\": [..]} or {\"text\": \"..\"}")
      ->required();
  app.add_option("--output", options->output, "JSON lines: {\"logprobs\": [..]}")->required();
  declare_device(app, options->device);
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

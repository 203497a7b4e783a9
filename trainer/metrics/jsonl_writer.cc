#include "trainer/metrics/jsonl_writer.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

using Json = nlohmann::ordered_json;

void put(Json& object, const char* key, double value) {
  object[key] = value;
  if (std::isfinite(value)) return;
  object[key] = nullptr;
  object["non_finite"][key] = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

Json to_json(const StepRecord& record) {
  Json json;
  json["kind"] = "step";
  json["step"] = record.step;
  json["total_steps"] = record.total_steps;
  json["tokens"] = record.tokens;
  put(json, "loss", record.loss);
  put(json, "lm_loss", record.lm_loss);
  put(json, "aux_loss", record.aux_loss);
  put(json, "z_loss", record.z_loss);
  put(json, "activation_loss", record.activation_loss);
  put(json, "grad_norm", record.grad_norm);
  put(json, "lr", record.lr);
  put(json, "step_seconds", record.step_seconds);
  put(json, "tokens_per_second", record.tokens_per_second);
  put(json, "mfu", record.mfu);
  put(json, "peak_gflops", record.peak_gflops);
  json["peak_memory_bytes"] = record.peak_memory_bytes;
  put(json, "expert_load_max", record.expert_load_max);
  put(json, "expert_entropy", record.expert_entropy);
  json["dropped_rows"] = record.dropped_rows;
  json["skipped_steps"] = record.skipped_steps;
  if (record.seconds) {
    Json seconds;
    for (int part = 0; part < kNumParts; ++part) {
      put(seconds, part_name(static_cast<Part>(part)),
          (*record.seconds)[static_cast<std::size_t>(part)]);
    }
    json["seconds"] = std::move(seconds);
  }
  if (!record.sent_bytes.empty()) {
    Json sent;
    for (const auto& [axis, bytes] : record.sent_bytes) sent[axis] = bytes;
    json["sent_bytes"] = std::move(sent);
  }
  put(json, "seconds_left", record.seconds_left);
  return json;
}

Json to_json(const EvalRecord& record) {
  Json json;
  json["kind"] = "eval";
  json["step"] = record.step;
  put(json, "mean_loss", record.mean_loss);
  json["sources"] = Json::array();
  for (const EvalRecord::Source& source : record.sources) {
    Json entry;
    entry["name"] = source.name;
    put(entry, "loss", source.loss);
    put(entry, "unigram_entropy", source.unigram_entropy);
    entry["tokens"] = source.tokens;
    json["sources"].push_back(std::move(entry));
  }
  return json;
}

/// A source may be named after a file whose name is no UTF-8; a lost letter beats a lost run.
std::string to_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::int64_t step_of(const std::string& line, const std::string& path, std::int64_t number) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) {
    throw DataError(fmt::format(
        "{}:{}: expected a metrics record with a whole number \"step\", found '{}'; repair or "
        "remove the line, or move the file away",
        path, number, line.substr(0, 80)));
  }
  return json["step"].get<std::int64_t>();
}

}  // namespace

JsonlWriter::JsonlWriter(std::string path) : file_(std::move(path), AppendFile::Open::append) {}

void JsonlWriter::write(const StepRecord& record) { file_.append(to_line(to_json(record))); }

void JsonlWriter::write(const EvalRecord& record) { file_.append(to_line(to_json(record))); }

void JsonlWriter::truncate_after(std::int64_t step) {
  std::ifstream in(path(), std::ios::binary);
  if (!in) {
    throw IoError(
        fmt::format("cannot read {}: {} (errno {})", path(), std::strerror(errno), errno));
  }
  std::int64_t keep = 0, number = 0;
  std::string line;
  while (std::getline(in, line)) {
    if (in.eof()) break;  // no newline: the record was never completed
    if (step_of(line, path(), ++number) > step) break;
    keep += static_cast<std::int64_t>(line.size()) + 1;
  }
  if (in.bad()) {
    throw IoError(
        fmt::format("cannot read {}: {} (errno {})", path(), std::strerror(errno), errno));
  }
  file_.truncate(keep);
}

}  // namespace jamba

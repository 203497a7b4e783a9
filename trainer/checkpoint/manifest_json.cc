#include <array>

#include "kernels/core/errors.h"
#include "trainer/checkpoint/hash.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/model_json.h"
#include "trainer/checkpoint/strict_json.h"

namespace jamba {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kFormatVersion = 1;
constexpr std::string_view kHead = "{\"checkpoint\":\n";
constexpr std::string_view kMiddle = ",\n\"xxh3_128\":\"";
constexpr std::string_view kTail = "\"}\n";
constexpr std::array kDtypes = {DType::f32, DType::bf16, DType::i32, DType::i64, DType::u8};

Json to_json(const FileRecord& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"xxh3_128", file.hash}};
}

Json to_json(const SliceRecord& slice) {
  return {{"name", slice.name},
          {"dtype", dtype_name(slice.dtype)},
          {"global_shape", slice.global_shape},
          {"offset", slice.box.offset},
          {"extents", slice.box.extents},
          {"file", slice.file},
          {"xxh3_128", slice.hash}};
}

template <class Record>
Json to_json(const std::vector<Record>& records) {
  Json array = Json::array();
  for (const Record& record : records) array.push_back(to_json(record));
  return array;
}

std::string read_hash(JsonObject& object) {
  const std::string& hash = object.string("xxh3_128");
  if (hash.size() != kHashDigits) object.fail("xxh3_128", "expected 32 hexadecimal digits");
  return hash;
}

FileRecord read_file_record(const nlohmann::json& json, const std::string& where) {
  JsonObject object(json, where);
  FileRecord file{object.string("name"), object.integer_from("bytes", 0), read_hash(object)};
  object.expect_all_read();
  return file;
}

SliceRecord read_slice_record(const nlohmann::json& json, const std::string& where) {
  JsonObject object(json, where);
  SliceRecord slice;
  slice.name = object.string("name");
  const std::string& dtype = object.string("dtype");
  bool known = false;
  for (const DType candidate : kDtypes) {
    if (dtype_name(candidate) != dtype) continue;
    slice.dtype = candidate;
    known = true;
  }
  if (!known) object.fail("dtype", fmt::format("unknown dtype '{}'", dtype));
  slice.global_shape = object.sizes("global_shape");
  slice.box = {object.sizes("offset"), object.sizes("extents")};
  slice.file = object.string("file");
  slice.hash = read_hash(object);
  object.expect_all_read();
  return slice;
}

Shard read_shard(JsonObject& object) {
  Shard shard;
  for (const auto& item : object.array("files")) {
    shard.files.push_back(read_file_record(item, object.where() + ": files"));
  }
  for (const auto& item : object.array("slices")) {
    shard.slices.push_back(read_slice_record(item, object.where() + ": slices"));
  }
  return shard;
}

Json to_json(const Manifest& manifest) {
  const CheckpointInfo& info = manifest.info;
  Json mesh = Json::object();
  for (const auto& [axis, degree] : info.mesh) mesh[axis] = degree;
  Json json;
  json["format"] = "jamba-checkpoint";
  json["format_version"] = kFormatVersion;
  json["step"] = info.step;
  json["tokens_seen"] = info.tokens_seen;
  json["sampler_seed"] = info.sampler_seed;
  json["sampler_position"] = info.sampler_position;
  json["weights_only"] = info.weights_only;
  json["world_size"] = manifest.world_size;
  json["mesh"] = mesh;
  json["tokenizer_hash"] = info.tokenizer_hash;
  json["model"] = Json::parse(model_to_json(info.model));
  json["run_config"] = info.run_config;
  json["files"] = to_json(manifest.files);
  json["slices"] = to_json(manifest.slices);
  return json;
}

Manifest read_manifest_json(const nlohmann::json& json, const std::string& where) {
  JsonObject object(json, where);
  if (object.string("format") != "jamba-checkpoint") object.fail("format", "is another format");
  const std::int64_t version = object.integer("format_version");
  if (version != kFormatVersion) {
    object.fail("format_version", fmt::format("written by format version {}, this program reads {}",
                                              version, kFormatVersion));
  }
  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  info.step = object.integer_from("step", 0);
  info.tokens_seen = object.integer_from("tokens_seen", 0);
  info.sampler_seed = object.unsigned_integer("sampler_seed");
  info.sampler_position = object.integer_from("sampler_position", 0);
  info.weights_only = object.boolean("weights_only");
  manifest.world_size = object.integer_from("world_size", 1);
  JsonObject mesh = object.object("mesh");
  for (const auto& item : mesh.json().items()) {
    info.mesh.emplace_back(item.key(), mesh.integer_from(item.key(), 1));
  }
  info.tokenizer_hash = object.string("tokenizer_hash");
  info.model = model_from_json(object.raw("model").dump(), where + ": model");
  info.run_config = object.string("run_config");
  Shard all = read_shard(object);
  manifest.files = std::move(all.files);
  manifest.slices = std::move(all.slices);
  object.expect_all_read();
  return manifest;
}

bool is_shard_name(const std::string& name) {
  const std::string digits = name.size() > 8 ? name.substr(5, name.size() - 8) : "";
  return name.starts_with("rank-") && name.ends_with(".h5") && !digits.empty() &&
         digits.find_first_not_of("0123456789") == std::string::npos;
}

void check_files(const Manifest& manifest, const std::string& where) {
  std::set<std::string> names;
  for (const FileRecord& file : manifest.files) {
    if (!is_shard_name(file.name) && file.name != kTokenizerName) {
      throw DataError(
          fmt::format("{}: file '{}' is no name of a checkpoint's file", where, file.name));
    }
    if (!names.insert(file.name).second) {
      throw DataError(fmt::format("{}: file '{}' stands twice", where, file.name));
    }
  }
  for (const SliceRecord& slice : manifest.slices) {
    if (!names.contains(slice.file) || !is_shard_name(slice.file)) {
      throw DataError(
          fmt::format("{}: tensor '{}': file '{}' is not listed", where, slice.name, slice.file));
    }
  }
}

/// One key a line, and one file or slice a line: for people with grep.
std::string lines(const Json& json) {
  std::string text;
  for (const auto& item : json.items()) {
    text += fmt::format("{}{}:", text.empty() ? "{" : ",\n", Json(item.key()).dump());
    if (!item.value().is_array()) {
      text += item.value().dump();
      continue;
    }
    std::vector<std::string> records;
    for (const Json& record : item.value()) records.push_back(record.dump());
    text += fmt::format("[\n{}]", fmt::join(records, ",\n"));
  }
  return text + "}";
}

/// The text between head and hash. Every byte of the file is either compared or hashed.
std::string_view hashed_body(std::string_view text, const std::string& where) {
  const std::size_t frame = kMiddle.size() + kHashDigits + kTail.size();
  if (text.size() < kHead.size() + frame) {
    throw CheckpointError(fmt::format("{}: {} bytes, cut short", where, text.size()));
  }
  const std::size_t end = text.size() - frame;
  const std::string_view body = text.substr(kHead.size(), end - kHead.size());
  const std::string_view hash = text.substr(end + kMiddle.size(), kHashDigits);
  const bool framed =
      text.starts_with(kHead) && text.substr(end).starts_with(kMiddle) && text.ends_with(kTail);
  if (!framed || hash != hash_bytes(body.data(), static_cast<std::int64_t>(body.size()))) {
    throw CheckpointError(where + ": damaged: its content does not match its own hash");
  }
  return body;
}

}  // namespace

std::string manifest_to_text(const Manifest& manifest) {
  const std::string body = lines(to_json(manifest));
  const std::string hash = hash_bytes(body.data(), static_cast<std::int64_t>(body.size()));
  return fmt::format("{}{}{}{}{}", kHead, body, kMiddle, hash, kTail);
}

Manifest manifest_from_text(const std::string& text, const std::string& where) {
  const std::string_view body = hashed_body(text, where);
  try {
    const Manifest manifest = read_manifest_json(parse_strict_json(body, where), where);
    check_files(manifest, where);
    check_slices(manifest.slices, where);
    return manifest;
  } catch (const DataError& e) {
    throw CheckpointError(e.what());
  }
}

std::string shard_to_text(const Shard& shard) {
  Json json;
  json["files"] = to_json(shard.files);
  json["slices"] = to_json(shard.slices);
  return json.dump();
}

Shard shard_from_text(const std::string& text) {
  const nlohmann::json json = parse_strict_json(text, "shard");
  JsonObject object(json, "shard");
  return read_shard(object);
}

}  // namespace jamba

#include <unistd.h>

#include <set>

#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/strict_json.h"

namespace jamba {

namespace {

constexpr std::int64_t kMaxIndexBytes = 100'000'000;

/// A name that cannot leave the directory it is looked up in.
bool is_plain_file_name(const std::string& name) {
  if (name.empty() || name.size() > 255 || name[0] == '.') return false;
  return name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

}  // namespace

SafetensorsDirectory::SafetensorsDirectory(const std::string& directory) : directory_(directory) {
  const std::string single = directory + "/model.safetensors";
  if (::access(single.c_str(), F_OK) == 0) {
    add_file(single);
  } else if (::access((single + ".index.json").c_str(), F_OK) == 0) {
    open_index(directory);
  } else {
    throw NoInputError(directory +
                       ": holds neither model.safetensors nor model.safetensors.index.json");
  }
}

void SafetensorsDirectory::add_file(const std::string& path) {
  files_.push_back(std::make_unique<SafetensorsFile>(path));
  const SafetensorsFile& file = *files_.back();
  for (const SafetensorsEntry& entry : file.entries()) {
    const auto [it, added] = tensors_.emplace(entry.name, Location{&file, &entry});
    if (!added) {
      throw DataError(fmt::format("tensor '{}' stands in both {} and {}", entry.name,
                                  it->second.file->path(), path));
    }
  }
}

void SafetensorsDirectory::open_index(const std::string& directory) {
  const std::string path = directory + "/model.safetensors.index.json";
  const nlohmann::json json =
      parse_strict_json(read_file(path, Links::follow, kMaxIndexBytes), path);
  JsonObject weight_map = JsonObject(json, path).object("weight_map");
  std::set<std::string> shards;
  for (const auto& item : weight_map.json().items()) {
    const std::string& shard = weight_map.string(item.key());
    if (!is_plain_file_name(shard)) {
      weight_map.fail(item.key(), item.value().dump() + " is not the name of a file beside it");
    }
    shards.insert(shard);
  }
  for (const std::string& shard : shards) add_file(directory + "/" + shard);
  for (const auto& item : weight_map.json().items()) {
    const auto it = tensors_.find(item.key());
    const std::string expected = directory + "/" + weight_map.string(item.key());
    if (it == tensors_.end() || it->second.file->path() != expected) {
      weight_map.fail(item.key(), fmt::format("{} does not hold this tensor", expected));
    }
  }
  for (const auto& [name, location] : tensors_) {
    if (!weight_map.has(name)) {
      throw DataError(
          fmt::format("{}: tensor '{}' of {} is not listed", path, name, location.file->path()));
    }
  }
}

void SafetensorsDirectory::read(const std::string& name, const Tensor& out) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) throw DataError(fmt::format("{}: no tensor '{}'", directory_, name));
  it->second.file->read(*it->second.entry, out);
}

}  // namespace jamba

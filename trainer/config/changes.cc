#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "trainer/config/config.h"

namespace jamba {

std::vector<std::string> config_changes(const std::string& before, const std::string& now) {
  using nlohmann::ordered_json;
  const auto flat = [](const std::string& text) {
    const ordered_json json = ordered_json::parse(text, nullptr, false);
    return json.is_object() ? json.flatten() : ordered_json::object();
  };
  const ordered_json old_values = flat(before), new_values = flat(now);
  const auto name = [](std::string path) {
    for (char& c : path) c = c == '/' ? '.' : c;
    return path.substr(1);
  };
  std::vector<std::string> changes;
  for (const auto& [path, value] : new_values.items()) {
    if (!old_values.contains(path)) {
      changes.push_back(fmt::format("{}: now {}", name(path), value.dump()));
    } else if (old_values[path] != value) {
      changes.push_back(
          fmt::format("{}: {}, was {}", name(path), value.dump(), old_values[path].dump()));
    }
  }
  for (const auto& [path, value] : old_values.items()) {
    if (!new_values.contains(path)) {
      changes.push_back(fmt::format("{}: gone, was {}", name(path), value.dump()));
    }
  }
  return changes;
}

}  // namespace jamba

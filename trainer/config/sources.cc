#include "trainer/config/sources.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "kernels/core/errors.h"
#include "trainer/config/scalars.h"
#include "trainer/config/yaml_tree.h"

namespace jamba::config {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 20;

/// At most kMaxFileBytes + 1 bytes of a file, nothing if it cannot be read.
std::optional<std::string> read_file(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return std::nullopt;
  std::ifstream stream(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(kMaxFileBytes) + 1, '\0');
  if (!stream) return std::nullopt;
  stream.read(text.data(), kMaxFileBytes + 1);
  if (stream.bad()) return std::nullopt;
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

/// Reads files depth first and joins them.
class Loader {
 public:
  explicit Loader(FaultList& faults) : faults_(faults) {}

  /// included_at: the place of the include that asks for the file; none for the main file.
  std::optional<Node> load(const fs::path& path, const Place* included_at) {
    const std::optional<std::string> text = read_file(path);
    if (!text && !included_at) {
      throw NoInputError(
          fmt::format("{}: no such config file, or it cannot be read", path.string()));
    }
    if (!text) {
      faults_.add(
          *included_at, "include",
          fmt::format("cannot read '{}'; paths are relative to the including file", path.string()));
      return std::nullopt;
    }
    const int file = faults_.add_file(path.string());
    if (static_cast<std::int64_t>(text->size()) > kMaxFileBytes) {
      faults_.add({file}, "", "is larger than 1 MiB, too large for a config");
      return std::nullopt;
    }
    std::optional<Node> node = parse_yaml(*text, file, faults_);
    if (node && node->kind == Node::Kind::null) {
      faults_.add({file}, "", "holds no keys");
      return std::nullopt;
    }
    if (node && node->kind != Node::Kind::map) {
      faults_.add(node->place, "", "expected a section of keys, got " + kind_in_words(*node));
      return std::nullopt;
    }
    if (!node) return std::nullopt;
    return join_includes(path, std::move(*node));
  }

 private:
  std::optional<Node> join_includes(const fs::path& path, Node node) {
    const auto include = std::find_if(node.entries.begin(), node.entries.end(),
                                      [](const Entry& entry) { return entry.name == "include"; });
    if (include == node.entries.end()) return node;
    const Node value = std::move(include->value);
    const Place place = include->place;
    node.entries.erase(include);
    const std::vector<Node> names =
        value.kind == Node::Kind::list ? value.items : std::vector<Node>{value};

    open_.push_back(fs::weakly_canonical(path));
    Node joined;
    joined.kind = Node::Kind::map;
    joined.place = node.place;
    bool complete = true;
    for (const Node& name : names) {
      if (name.kind != Node::Kind::scalar || name.text.empty()) {
        faults_.add(place, "include", "expected a file name or a list of them");
        complete = false;
        continue;
      }
      std::optional<Node> part = load_include(path, name);
      complete = complete && part.has_value();
      if (part) merge(joined, std::move(*part));
    }
    open_.pop_back();
    if (!complete) return std::nullopt;
    merge(joined, std::move(node));
    return joined;
  }

  std::optional<Node> load_include(const fs::path& path, const Node& name) {
    const fs::path target = (path.parent_path() / name.text).lexically_normal();
    const auto loop = std::find(open_.begin(), open_.end(), fs::weakly_canonical(target));
    if (loop == open_.end()) return load(target, &name.place);
    std::string chain;
    for (auto it = loop; it != open_.end(); ++it) chain += it->filename().string() + " -> ";
    faults_.add(name.place, "include",
                fmt::format("files include each other: {}{}", chain, target.filename().string()));
    return std::nullopt;
  }

  FaultList& faults_;
  std::vector<fs::path> open_;  // the files whose includes are being read
};

/// The node at one step of an override's path, made if it is not there.
Node& step_into(Node& node, const std::string& part, Place place, bool last) {
  if (node.kind == Node::Kind::list) {
    std::size_t index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    if (error == std::errc() && end == part.data() + part.size() && index <= node.items.size()) {
      if (index == node.items.size()) node.items.emplace_back().place = place;
      return node.items[index];
    }
  }
  if (node.kind != Node::Kind::map) {
    node = Node{};
    node.kind = Node::Kind::map;
    node.place = place;
  }
  Entry* entry = node.find(part);
  if (!entry) entry = &node.entries.emplace_back(Entry{part, place, {}});
  if (last) entry->place = place;
  return entry->value;
}

bool apply(Node& root, const std::string& setting, Place place, FaultList& faults) {
  const std::size_t equals = setting.find('=');
  const std::string path = setting.substr(0, equals);
  const bool sound = equals != std::string::npos && !path.empty() && path.front() != '.' &&
                     path.back() != '.' && path.find("..") == std::string::npos;
  if (!sound) {
    faults.add(place, "",
               fmt::format("{}: write key.path=value, as in train.steps=100", quote(setting)));
    return false;
  }
  const std::optional<Node> value =
      parse_yaml_value(setting.substr(equals + 1), place.file, path, faults);
  if (!value) return false;
  Node* node = &root;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    node = &step_into(*node, path.substr(begin, end - begin), place, end == path.size());
    begin = end + 1;
  }
  *node = *value;
  node->place = place;
  return true;
}

}  // namespace

std::optional<Node> load_files(const fs::path& path, FaultList& faults) {
  return Loader(faults).load(path, nullptr);
}

bool apply_overrides(Node& root, std::span<const std::string> overrides, FaultList& faults) {
  if (overrides.empty()) return true;
  const Place place{faults.add_file("override")};
  bool complete = true;
  for (const std::string& setting : overrides) {
    complete = apply(root, setting, place, faults) && complete;
  }
  return complete;
}

}  // namespace jamba::config

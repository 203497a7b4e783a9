#include "trainer/config/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <sstream>

#include "trainer/config/scalars.h"

namespace jamba::config {

namespace {

constexpr std::size_t kMaxDepth = 32;

/// Ends the reading of a document whose fault has been noted.
struct StopReading {};

/// Builds the tree from parser events. Working on events, not on yaml-cpp's own nodes, shows
/// duplicates, anchors and aliases before yaml-cpp resolves them (a self-alias would be a cycle).
class TreeBuilder : public YAML::EventHandler {
 public:
  /// key: of the whole document; empty for a file.
  TreeBuilder(int file, std::string key, FaultList& faults)
      : file_(file), key_(std::move(key)), faults_(faults) {}

  /// The place of a mark of the parser; a value from the command line has no lines.
  Place place(const YAML::Mark& mark) const {
    if (!key_.empty() || mark.is_null()) return {file_, 0, 0};
    return {file_, mark.line + 1, mark.column + 1};
  }

  Node take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add_leaf(mark, "?", anchor, Node{});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fault(mark, "aliases (*name) are not supported; write the value out");
    add_leaf(mark, "?", YAML::NullAnchor, Node{});
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node;
    node.kind = Node::Kind::scalar;
    node.text = value;
    node.quoted = tag == "!";  // the parser's mark of a scalar that is not plain
    add_leaf(mark, tag, anchor, std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::list);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::map);
  }
  void OnMapEnd() override { close(); }

 private:
  /// A container that is still being read, and in a map the key whose value comes next.
  struct Open {
    Node node;
    Entry key{};
    bool has_key = false;
    std::string path{};
  };

  /// The path of the value that comes next.
  std::string next_path() const {
    if (stack_.empty()) return key_;
    const Open& top = stack_.back();
    const std::string name =
        top.node.kind == Node::Kind::map ? top.key.name : std::to_string(top.node.items.size());
    return top.path.empty() ? name : top.path + "." + name;
  }

  bool key_comes_next() const {
    return !stack_.empty() && stack_.back().node.kind == Node::Kind::map && !stack_.back().has_key;
  }

  void fault(const YAML::Mark& mark, std::string message) {
    faults_.add(place(mark), key_comes_next() ? stack_.back().path : next_path(),
                std::move(message));
  }

  void refuse_extras(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      fault(mark, "anchors (&name) are not supported; write the value out");
    }
    if (!tag.empty() && tag != "?" && tag != "!") {
      fault(mark, fmt::format("tags ({}) are not supported; remove it", quote(tag)));
    }
  }

  void add_leaf(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Node node) {
    refuse_extras(mark, tag, anchor);
    node.place = place(mark);
    const bool of_key = !key_comes_next() && !stack_.empty() && stack_.back().has_key;
    // The parser marks a value that is not there at the token that follows.
    if (node.kind == Node::Kind::null && of_key) node.place = stack_.back().key.place;
    if (key_comes_next()) {
      set_key(mark, node);
    } else {
      add_value(std::move(node));
    }
  }

  void set_key(const YAML::Mark& mark, const Node& node) {
    Open& top = stack_.back();
    if (node.text == "<<" && !node.quoted) {
      fault(mark, "merge keys (<<) are not supported; write the keys out");
    } else if (node.kind != Node::Kind::scalar || node.text.empty()) {
      fault(mark, "a key must be a plain word");
    }
    top.key = {node.text, place(mark), {}};
    top.has_key = true;
    if (const Entry* first = top.node.find(node.text)) {
      faults_.add(place(mark), next_path(),
                  fmt::format("set twice, first at {}:{}; keep one", first->place.line,
                              first->place.column));
    }
  }

  void add_value(Node node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& top = stack_.back();
    if (top.node.kind == Node::Kind::list) {
      top.node.items.push_back(std::move(node));
      return;
    }
    top.has_key = false;
    const bool merge_key = top.key.name == "<<";
    if (merge_key || top.key.name.empty() || top.node.find(top.key.name)) return;  // noted
    top.key.value = std::move(node);
    top.node.entries.push_back(std::move(top.key));
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            Node::Kind kind) {
    refuse_extras(mark, tag, anchor);
    if (key_comes_next()) {
      fault(mark, "a key must be a plain word, not a list or a section; is a bracket left open?");
      throw StopReading();
    }
    if (stack_.size() >= kMaxDepth) {
      faults_.add(place(mark), "", fmt::format("nested more than {} levels deep", kMaxDepth));
      throw StopReading();
    }
    Open next;
    next.path = next_path();
    next.node.kind = kind;
    next.node.place = place(mark);
    stack_.push_back(std::move(next));
  }

  void close() {
    Node node = std::move(stack_.back().node);
    stack_.pop_back();
    add_value(std::move(node));
  }

  int file_;
  std::string key_;
  FaultList& faults_;
  Node root_;
  std::vector<Open> stack_;
};

/// The line of the first byte that is no UTF-8, 0 if all are.
int first_line_not_utf8(std::string_view text) {
  int line = 1;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int length = lead < 0x80                    ? 1
                       : lead >= 0xc2 && lead <= 0xdf ? 2
                       : lead >= 0xe0 && lead <= 0xef ? 3
                       : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                      : 0;
    if (length == 0 || lead == 0 || i + static_cast<std::size_t>(length) > text.size()) return line;
    for (int k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + static_cast<std::size_t>(k)]) & 0xc0) != 0x80) {
        return line;
      }
    }
    if (lead == '\n') ++line;
    i += static_cast<std::size_t>(length);
  }
  return 0;
}

std::optional<Node> parse(const std::string& text, int file, const std::string& key,
                          FaultList& faults) {
  TreeBuilder builder(file, key, faults);
  if (const int line = first_line_not_utf8(text); line > 0) {
    faults.add(key.empty() ? Place{file, line, 1} : Place{file}, key, "is not UTF-8 text");
    return std::nullopt;
  }
  std::istringstream stream(text);
  try {
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    TreeBuilder second(file, key, faults);
    if (parser.HandleNextDocument(second)) {
      faults.add(second.take_root().place, key, "holds a second document (---); keep one");
    }
    return builder.take_root();
  } catch (const StopReading&) {
    return std::nullopt;
  } catch (const YAML::Exception& error) {
    faults.add(builder.place(error.mark), key, "is not valid YAML: " + error.msg);
    return std::nullopt;
  }
}

}  // namespace

std::optional<Node> parse_yaml(const std::string& text, int file, FaultList& faults) {
  return parse(text, file, "", faults);
}

std::optional<Node> parse_yaml_value(const std::string& text, int file, const std::string& key,
                                     FaultList& faults) {
  return parse(text, file, key, faults);
}

}  // namespace jamba::config

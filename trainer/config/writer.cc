#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "trainer/config/config.h"
#include "trainer/config/fields.h"

namespace jamba {

namespace {

using config::FieldVisitor;
using config::IntegerRange;
using config::Key;
using config::Need;
using config::RealRange;
using nlohmann::ordered_json;

class JsonWriter : public FieldVisitor {
 public:
  JsonWriter() { stack_.push_back({"", ordered_json::object()}); }

  std::string result() const { return stack_.front().value.dump(2) + "\n"; }

  void integer(const Key& key, std::int64_t& value, IntegerRange) override { set(key, value); }
  void real(const Key& key, double& value, RealRange) override { set(key, value); }
  void boolean(const Key& key, bool& value) override { set(key, value); }
  void text(const Key& key, std::string& value) override { set(key, value); }
  void choice(const Key& key, std::size_t& index,
              std::span<const std::string_view> names) override {
    set(key, names[index]);
  }
  void begin_section(const Key& key) override {
    stack_.push_back({std::string(key.name), ordered_json::object()});
  }
  void end_section() override {
    Open done = take();
    stack_.back().value[done.name] = std::move(done.value);
  }
  std::size_t begin_list(const Key& key, std::size_t size) override {
    stack_.push_back({std::string(key.name), ordered_json::array()});
    return size;
  }
  void begin_item(std::size_t) override { stack_.push_back({"", ordered_json::object()}); }
  void end_item() override {
    Open done = take();
    stack_.back().value.push_back(std::move(done.value));
  }
  void end_list() override { end_section(); }

 private:
  struct Open {
    std::string name;
    ordered_json value;
  };

  template <class T>
  void set(const Key& key, const T& value) {
    stack_.back().value[std::string(key.name)] = value;
  }
  Open take() {
    Open done = std::move(stack_.back());
    stack_.pop_back();
    return done;
  }

  std::vector<Open> stack_;
};

class YamlWriter : public FieldVisitor {
 public:
  explicit YamlWriter(const ConfigOrigins& origins) : origins_(origins) {}

  std::string take_result() { return std::move(out_); }

  void integer(const Key& key, std::int64_t& value, IntegerRange range) override {
    set(key, in_words(range), fmt::format("{}", value));
  }
  void real(const Key& key, double& value, RealRange range) override {
    set(key, in_words(range), fmt::format("{}", value));
  }
  void boolean(const Key& key, bool& value) override {
    set(key, "true or false", value ? "true" : "false");
  }
  void text(const Key& key, std::string& value) override {
    // JSON's escapes are also YAML's.
    set(key, "text",
        ordered_json(value).dump(-1, ' ', false, ordered_json::error_handler_t::replace));
  }
  void choice(const Key& key, std::size_t& index,
              std::span<const std::string_view> names) override {
    set(key, fmt::format("{}", fmt::join(names, ", ")), std::string(names[index]));
  }
  void begin_section(const Key& key) override {
    out_ += '\n';
    comment(key.doc);
    line(fmt::format("{}:", key.name));
    path_.emplace_back(key.name);
  }
  void end_section() override { path_.pop_back(); }
  std::size_t begin_list(const Key& key, std::size_t size) override {
    comment(key.doc);
    line(fmt::format("{}:{}", key.name, size == 0 ? " []" : ""));
    path_.emplace_back(key.name);
    return size;
  }
  void begin_item(std::size_t index) override {
    line("-");
    path_.push_back(std::to_string(index));
  }
  void end_item() override { path_.pop_back(); }
  void end_list() override { path_.pop_back(); }

 private:
  static constexpr std::size_t kColumns = 100;

  std::string indent() const { return std::string(2 * path_.size(), ' '); }

  void line(std::string_view text) { out_ += fmt::format("{}{}\n", indent(), text); }

  /// A comment, folded to the width of the page.
  void comment(std::string_view text) {
    std::string row = "#";
    while (!text.empty()) {
      const std::size_t end = std::min(text.find(' '), text.size());
      if (indent().size() + row.size() + 1 + end > kColumns) {
        line(row);
        row = "#";
      }
      row += fmt::format(" {}", text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    line(row);
  }

  void set(const Key& key, const std::string& values, const std::string& value) {
    // Later items of a list have the keys of the first.
    const bool explained = !path_.empty() && path_.back() != "0" &&
                           path_.back().find_first_not_of("0123456789") == std::string::npos;
    if (!explained) {
      comment(fmt::format("{} ({}{})", key.doc, values,
                          key.need == Need::optional ? "" : "; required"));
    }
    std::string path = fmt::format("{}", fmt::join(path_, "."));
    path += path.empty() ? "" : ".";
    const auto origin = origins_.find(path + std::string(key.name));
    line(fmt::format("{}: {}{}", key.name, value,
                     origin == origins_.end() ? "" : "  # from " + origin->second));
  }

  const ConfigOrigins& origins_;
  std::vector<std::string> path_;
  std::string out_;
};

}  // namespace

std::string to_json(const RunConfig& run) {
  RunConfig copy = run;
  JsonWriter writer;
  visit_fields(writer, copy);
  return writer.result();
}

std::string to_yaml(const RunConfig& run, const ConfigOrigins& origins) {
  RunConfig copy = run;
  YamlWriter writer(origins);
  visit_fields(writer, copy);
  return writer.take_result();
}

}  // namespace jamba

#include "trainer/config/reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "trainer/config/nearest.h"
#include "trainer/config/scalars.h"

namespace jamba::config {

namespace {

std::string hint(std::string_view near) {
  return near.empty() ? std::string() : fmt::format("; did you mean '{}'?", near);
}

std::string_view last_part(std::string_view path) {
  return path.substr(path.rfind('.') + 1);  // npos + 1 is 0
}

}  // namespace

Reader::Reader(const Node& root, Require require, FaultList& faults)
    : require_(require), faults_(faults) {
  stack_.push_back({&root, "", root.place});
}

std::string Reader::path_of(const Key& key) const {
  const std::string& section = stack_.back().path;
  return section.empty() ? std::string(key.name) : fmt::format("{}.{}", section, key.name);
}

const Entry* Reader::look_up(const Key& key) {
  Frame& frame = stack_.back();
  frame.known.push_back(key);
  std::string path = path_of(key);
  const Entry* entry = frame.node ? frame.node->find(key.name) : nullptr;
  if (entry) {
    places_[path] = entry->place;
  } else {
    const bool needed =
        key.need == Need::always || (key.need == Need::for_run && require_ == Require::run);
    if (needed && frame.report_missing) {
      faults_.add(frame.place, path, fmt::format("is missing: {}", key.doc));
    }
  }
  all_paths_.push_back(std::move(path));
  return entry;
}

const Node* Reader::scalar(const Key& key, std::string_view expected) {
  const Entry* entry = look_up(key);
  if (!entry) return nullptr;
  if (entry->value.kind == Node::Kind::scalar) return &entry->value;
  faults_.add(entry->value.place, path_of(key),
              fmt::format("expected {}, got {}", expected, kind_in_words(entry->value)));
  return nullptr;
}

template <class Parse>
void Reader::parse_scalar(const Key& key, std::string_view expected, Parse parse) {
  const Node* node = scalar(key, expected);
  if (!node) return;
  if (node->quoted) {
    faults_.add(node->place, path_of(key),
                fmt::format("expected {}, got the quoted text {}; remove the quotes", expected,
                            quote(node->text)));
    return;
  }
  const std::string wrong = parse(node->text);
  if (!wrong.empty()) faults_.add(node->place, path_of(key), wrong);
}

void Reader::integer(const Key& key, std::int64_t& value, IntegerRange) {
  parse_scalar(key, "an integer",
               [&](const std::string& text) { return parse_integer(text, value); });
}

void Reader::real(const Key& key, double& value, RealRange) {
  parse_scalar(key, "a number", [&](const std::string& text) { return parse_real(text, value); });
}

void Reader::boolean(const Key& key, bool& value) {
  parse_scalar(key, "true or false",
               [&](const std::string& text) { return parse_boolean(text, value); });
}

void Reader::text(const Key& key, std::string& value) {
  const Node* node = scalar(key, "text");
  if (!node) return;
  const bool needed =
      key.need == Need::always || (key.need == Need::for_run && require_ == Require::run);
  if (needed && node->text.empty()) {
    faults_.add(node->place, path_of(key), "must not be empty");
    return;
  }
  value = node->text;
}

void Reader::choice(const Key& key, std::size_t& index, std::span<const std::string_view> names) {
  const std::string expected = fmt::format("one of {}", fmt::join(names, ", "));
  const Node* node = scalar(key, expected);
  if (!node) return;
  const auto it = std::find(names.begin(), names.end(), node->text);
  if (it == names.end()) {
    faults_.add(node->place, path_of(key),
                fmt::format("expected {}, got {}{}", expected, quote(node->text),
                            hint(nearest(node->text, names))));
    return;
  }
  index = static_cast<std::size_t>(it - names.begin());
}

void Reader::push(const Entry* entry, std::string path) {
  Frame frame{nullptr, std::move(path), entry ? entry->place : stack_.back().place};
  frame.report_missing = stack_.back().report_missing;
  if (entry && entry->value.kind == Node::Kind::map) {
    frame.node = &entry->value;
  } else if (entry && entry->value.kind != Node::Kind::null) {
    faults_.add(entry->value.place, frame.path,
                "expected a section of keys, got " + kind_in_words(entry->value));
    frame.report_missing = false;
  }
  stack_.push_back(std::move(frame));
}

void Reader::begin_section(const Key& key) {
  const Entry* entry = look_up(key);
  push(entry, path_of(key));
}

void Reader::end_section() { pop(); }

std::size_t Reader::begin_list(const Key& key, std::size_t) {
  const Entry* entry = look_up(key);
  Frame frame{nullptr, path_of(key), entry ? entry->place : stack_.back().place};
  if (entry && entry->value.kind == Node::Kind::list) {
    frame.node = &entry->value;
  } else if (entry) {
    faults_.add(entry->value.place, frame.path,
                "expected a list, got " + kind_in_words(entry->value));
  }
  stack_.push_back(std::move(frame));
  return stack_.back().node ? stack_.back().node->items.size() : 0;
}

void Reader::begin_item(std::size_t index) {
  const Node& item = stack_.back().node->items[index];
  std::string path = fmt::format("{}.{}", stack_.back().path, index);
  places_[path] = item.place;
  Frame frame{nullptr, path, item.place};
  if (item.kind == Node::Kind::map) {
    frame.node = &item;
  } else {
    faults_.add(item.place, path, "expected a section of keys, got " + kind_in_words(item));
    frame.report_missing = false;
  }
  stack_.push_back(std::move(frame));
}

void Reader::end_item() { pop(); }

void Reader::end_list() { stack_.pop_back(); }

void Reader::pop() {
  const Frame& frame = stack_.back();
  if (frame.node) {
    std::vector<std::string_view> names, words;
    for (const Key& key : frame.known) {
      for (const std::string_view word : {key.name, key.also}) {
        if (word.empty()) continue;
        words.push_back(word);
        names.push_back(key.name);
      }
    }
    for (const Entry& entry : frame.node->entries) {
      if (std::find(names.begin(), names.end(), entry.name) != names.end()) continue;
      const std::string_view near = nearest(entry.name, words);
      const auto it = std::find(words.begin(), words.end(), near);
      unknown_.push_back({&entry, frame.path,
                          it == words.end() ? std::string_view()
                                            : names[static_cast<std::size_t>(it - words.begin())]});
    }
  }
  stack_.pop_back();
}

void Reader::finish() {
  pop();
  for (const Unknown& unknown : unknown_) {
    const std::string& name = unknown.entry->name;
    // The right key in the wrong section beats a similar one in this section.
    const auto elsewhere =
        std::find_if(all_paths_.begin(), all_paths_.end(),
                     [&](const std::string& path) { return last_part(path) == name; });
    const std::string_view near =
        elsewhere != all_paths_.end() ? std::string_view(*elsewhere) : unknown.near;
    faults_.add(unknown.entry->place,
                unknown.section.empty() ? name : fmt::format("{}.{}", unknown.section, name),
                "unknown key" + hint(near));
  }
}

}  // namespace jamba::config

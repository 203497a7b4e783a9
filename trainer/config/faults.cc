#include "trainer/config/faults.h"

#include <algorithm>
#include <cctype>
#include <tuple>

#include "kernels/core/errors.h"

namespace jamba::config {

namespace {

constexpr std::size_t kMaxReported = 50;  // a file of another kind has thousands

std::string_view last_part(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

bool is_name_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// Whether `word` stands in `text` as a word of its own.
bool has_word(std::string_view text, std::string_view word) {
  for (std::size_t at = text.find(word); at != std::string_view::npos;
       at = text.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    const bool starts = at == 0 || !is_name_char(text[at - 1]);
    if (starts && (end == text.size() || !is_name_char(text[end]))) return true;
  }
  return false;
}

}  // namespace

int FaultList::add_file(std::string name) {
  files_.push_back(std::move(name));
  return static_cast<int>(files_.size()) - 1;
}

void FaultList::add(Place place, std::string key, std::string message) {
  faults_.push_back({place, std::move(key), std::move(message)});
}

bool FaultList::has(std::string_view key) const {
  return std::any_of(faults_.begin(), faults_.end(),
                     [&](const Fault& fault) { return fault.key == key; });
}

bool FaultList::mentions_faulty_key(std::string_view words) const {
  return std::any_of(faults_.begin(), faults_.end(), [&](const Fault& fault) {
    return !fault.key.empty() && has_word(words, last_part(fault.key));
  });
}

std::string FaultList::describe(Place place) const {
  if (place.line == 0) return file(place.file);
  return fmt::format("{}:{}:{}", file(place.file), place.line, place.column);
}

void FaultList::throw_if_any() const {
  if (faults_.empty()) return;
  std::vector<Fault> sorted = faults_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Fault& a, const Fault& b) {
    return std::tie(a.place.file, a.place.line, a.place.column) <
           std::tie(b.place.file, b.place.line, b.place.column);
  });
  std::string text;
  for (std::size_t i = 0; i < std::min(sorted.size(), kMaxReported); ++i) {
    const Fault& fault = sorted[i];
    if (i > 0) text += '\n';
    text += describe(fault.place) + ": ";
    if (!fault.key.empty()) text += fault.key + ": ";
    text += fault.message;
  }
  if (sorted.size() > kMaxReported) {
    text += fmt::format("\nand {} more", sorted.size() - kMaxReported);
  }
  throw ConfigError(text);
}

}  // namespace jamba::config

#pragma once
// The list of everything that is wrong with a config.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/config/tree.h"

namespace jamba::config {

class FaultList {
 public:
  /// Names a source of keys and returns its number, for Place::file.
  int add_file(std::string name);
  const std::string& file(int index) const { return files_[static_cast<std::size_t>(index)]; }

  /// key: the full path such as "train.steps"; empty: the fault concerns the whole file.
  void add(Place, std::string key, std::string message);
  bool empty() const { return faults_.empty(); }

  /// True if a fault was reported for this key.
  bool has(std::string_view key) const;
  /// True if `words` names a key that has a fault, by its last part: a rule over a value that
  /// could not be read has nothing to say.
  bool mentions_faulty_key(std::string_view words) const;

  /// "train.yaml:14:3", "train.yaml" without a line.
  std::string describe(Place) const;

  /// Errors: ConfigError with one line a fault, in the order of files and lines, if there is any.
  void throw_if_any() const;

 private:
  struct Fault {
    Place place;
    std::string key;
    std::string message;
  };
  std::vector<std::string> files_;
  std::vector<Fault> faults_;
};

}  // namespace jamba::config

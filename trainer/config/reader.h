#pragma once
// Fills a config struct from a tree of nodes.

#include <map>
#include <string>
#include <vector>

#include "trainer/config/faults.h"
#include "trainer/config/fields.h"
#include "trainer/config/tree.h"

namespace jamba::config {

/// Keys that a config must have: a run's, or only those of its model.
enum class Require { run, model };

/// Adds faults for wrong types, unknown keys with the nearest right one, and missing keys. Ranges
/// are not its concern.
class Reader : public FieldVisitor {
 public:
  Reader(const Node& root, Require, FaultList&);

  void integer(const Key&, std::int64_t& value, IntegerRange) override;
  void real(const Key&, double& value, RealRange) override;
  void boolean(const Key&, bool& value) override;
  void text(const Key&, std::string& value) override;
  void choice(const Key&, std::size_t& index, std::span<const std::string_view> names) override;
  void begin_section(const Key&) override;
  void end_section() override;
  std::size_t begin_list(const Key&, std::size_t size) override;
  void begin_item(std::size_t index) override;
  void end_item() override;
  void end_list() override;

  /// Reports unknown keys; call once, after the visit.
  void finish();

  /// Where each key that was given stands, by its full path; sections and items too.
  const std::map<std::string, Place>& places() const { return places_; }

 private:
  /// A section or item that is being visited. node: null if the config does not have it.
  struct Frame {
    const Node* node;
    std::string path;
    Place place;
    std::vector<Key> known{};
    bool report_missing = true;
  };
  struct Unknown {
    const Entry* entry;
    std::string section;
    std::string_view near;  // in the same section
  };

  std::string path_of(const Key&) const;
  /// The value of a key, null if it is not given (a missing key that must be there is a fault).
  const Entry* look_up(const Key&);
  /// The scalar of a key; null, with the fault noted, if it is something else.
  const Node* scalar(const Key&, std::string_view expected);
  template <class Parse>
  void parse_scalar(const Key&, std::string_view expected, Parse parse);
  void push(const Entry*, std::string path);
  void pop();

  Require require_;
  FaultList& faults_;
  std::vector<Frame> stack_;
  std::vector<std::string> all_paths_;
  std::vector<Unknown> unknown_;
  std::map<std::string, Place> places_;
};

}  // namespace jamba::config

#pragma once
// The table of every key: name, range, documentation. Reading, checking and writing of configs are
// visitors of this one table.

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "trainer/run_config.h"

namespace jamba::config {

/// Whether a file must give the key. for_run: a run needs it, a model on its own does not.
enum class Need { optional, always, for_run };

struct Key {
  std::string_view name;
  std::string_view doc;  // meaning, unit, and what special values stand for
  Need need = Need::optional;
  std::string_view also = {};  // what others call it; for hints only
};

/// Both ends included.
struct IntegerRange {
  std::int64_t low = 0;
  std::int64_t high = std::numeric_limits<std::int64_t>::max();
};

enum class End { closed, open };

struct RealRange {
  double low = 0;
  double high = std::numeric_limits<double>::infinity();
  End low_end = End::closed;
  End high_end = End::closed;
};

/// "from 1 to 8", "at least 0", "above 0 and below 1".
std::string in_words(IntegerRange);
std::string in_words(RealRange);
bool contains(IntegerRange, std::int64_t value);
bool contains(RealRange, double value);  // false for NaN

/// Sees every key in the order of the table. Paths are the names of the open sections and items,
/// joined by dots.
class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void integer(const Key&, std::int64_t& value, IntegerRange) = 0;
  virtual void real(const Key&, double& value, RealRange) = 0;
  virtual void boolean(const Key&, bool& value) = 0;
  virtual void text(const Key&, std::string& value) = 0;
  /// One of `names`, by its index.
  virtual void choice(const Key&, std::size_t& index, std::span<const std::string_view> names) = 0;
  virtual void begin_section(const Key&) = 0;
  virtual void end_section() = 0;
  /// Returns the number of items to visit; `size` is the number that the struct holds now.
  virtual std::size_t begin_list(const Key&, std::size_t size) = 0;
  virtual void begin_item(std::size_t index) = 0;
  virtual void end_item() = 0;
  virtual void end_list() = 0;
};

/// Shows every key of a run to the visitor, which may read or change the values.
void visit_fields(FieldVisitor&, RunConfig&);

}  // namespace jamba::config

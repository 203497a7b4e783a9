#pragma once
// JSON from files that nobody vouches for: bounded depth, no duplicate keys, typed reads. Only
// .cc files of this folder include it.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace jamba {

/// Errors: DataError starting with `where` for bad syntax, invalid UTF-8, a duplicate key, or
/// nesting beyond 64.
nlohmann::json parse_strict_json(std::string_view text, const std::string& where);

/// Reads one JSON object key by key and remembers which were read.
/// Errors of every read: DataError "where: key 'k': expected ..., got ...".
/// Ownership: none; the json must outlive it.
class JsonObject {
 public:
  JsonObject(const nlohmann::json& value, std::string where);

  bool has(const std::string& key) const { return json_.contains(key); }
  /// Absent, or present with the value null.
  bool missing_or_null(const std::string& key);
  std::int64_t integer(const std::string& key);
  /// An integer of at least `low`.
  std::int64_t integer_from(const std::string& key, std::int64_t low);
  std::uint64_t unsigned_integer(const std::string& key);
  double number(const std::string& key);
  bool boolean(const std::string& key);
  const std::string& string(const std::string& key);
  /// An array of integers >= 0.
  std::vector<std::int64_t> sizes(const std::string& key);
  const nlohmann::json& array(const std::string& key);
  JsonObject object(const std::string& key);
  const nlohmann::json& raw(const std::string& key);

  const nlohmann::json& json() const { return json_; }
  const std::string& where() const { return where_; }
  /// Errors: DataError listing keys that no read asked for.
  void expect_all_read() const;
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;

 private:
  [[noreturn]] void fail_type(const std::string& key, const char* expected,
                              const nlohmann::json& got) const;

  const nlohmann::json& json_;
  std::string where_;
  std::set<std::string> read_;
};

}  // namespace jamba

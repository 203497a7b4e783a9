#include "trainer/checkpoint/strict_json.h"

#include <fmt/format.h>

#include <limits>

#include "kernels/core/errors.h"

namespace jamba {

namespace {

using Json = nlohmann::json;
constexpr int kMaxDepth = 64;

/// A value as it stands in the file, cut to a readable length.
std::string excerpt(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

}  // namespace

Json parse_strict_json(std::string_view text, const std::string& where) {
  std::vector<std::set<std::string>> keys;  // of every object that is open
  const auto inspect = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) {
      throw DataError(fmt::format("{}: JSON nested deeper than {}", where, kMaxDepth));
    }
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        throw DataError(fmt::format("{}: key '{}' stands twice in one object", where, key));
      }
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), inspect);
  } catch (const Json::exception& e) {
    throw DataError(fmt::format("{}: not valid JSON: {}", where, e.what()));
  }
}

JsonObject::JsonObject(const Json& value, std::string where)
    : json_(value), where_(std::move(where)) {
  if (!json_.is_object()) {
    throw DataError(fmt::format("{}: expected a JSON object, got {}", where_, excerpt(json_)));
  }
}

void JsonObject::fail(const std::string& key, const std::string& message) const {
  throw DataError(fmt::format("{}: key '{}': {}", where_, key, message));
}

void JsonObject::fail_type(const std::string& key, const char* expected, const Json& got) const {
  fail(key, fmt::format("expected {}, got {}", expected, excerpt(got)));
}

const Json& JsonObject::raw(const std::string& key) {
  read_.insert(key);
  const auto it = json_.find(key);
  if (it == json_.end()) fail(key, "missing");
  return *it;
}

bool JsonObject::missing_or_null(const std::string& key) { return !has(key) || raw(key).is_null(); }

namespace {

bool is_int64(const Json& value) {
  if (value.is_number_unsigned()) {
    return value.get<std::uint64_t>() <=
           static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  }
  return value.is_number_integer();
}

}  // namespace

std::int64_t JsonObject::integer(const std::string& key) {
  const Json& value = raw(key);
  if (!is_int64(value)) fail_type(key, "an integer", value);
  return value.get<std::int64_t>();
}

std::int64_t JsonObject::integer_from(const std::string& key, std::int64_t low) {
  const std::int64_t value = integer(key);
  if (value < low) fail(key, fmt::format("expected at least {}, got {}", low, value));
  return value;
}

std::uint64_t JsonObject::unsigned_integer(const std::string& key) {
  const Json& value = raw(key);
  if (!value.is_number_unsigned()) fail_type(key, "an unsigned integer", value);
  return value.get<std::uint64_t>();
}

double JsonObject::number(const std::string& key) {
  const Json& value = raw(key);
  if (!value.is_number()) fail_type(key, "a number", value);
  return value.get<double>();
}

bool JsonObject::boolean(const std::string& key) {
  const Json& value = raw(key);
  if (!value.is_boolean()) fail_type(key, "true or false", value);
  return value.get<bool>();
}

const std::string& JsonObject::string(const std::string& key) {
  const Json& value = raw(key);
  if (!value.is_string()) fail_type(key, "a string", value);
  return value.get_ref<const std::string&>();
}

const Json& JsonObject::array(const std::string& key) {
  const Json& value = raw(key);
  if (!value.is_array()) fail_type(key, "an array", value);
  return value;
}

std::vector<std::int64_t> JsonObject::sizes(const std::string& key) {
  const Json& values = array(key);
  std::vector<std::int64_t> out;
  out.reserve(values.size());
  for (const Json& value : values) {
    if (!is_int64(value) || value.get<std::int64_t>() < 0) {
      fail_type(key, "integers of at least 0", value);
    }
    out.push_back(value.get<std::int64_t>());
  }
  return out;
}

JsonObject JsonObject::object(const std::string& key) {
  return JsonObject(raw(key), fmt::format("{}: {}", where_, key));
}

void JsonObject::expect_all_read() const {
  for (const auto& item : json_.items()) {
    if (!read_.contains(item.key())) fail(item.key(), "unknown key");
  }
}

}  // namespace jamba

#include <algorithm>
#include <array>
#include <utility>

#include "trainer/checkpoint/checked_math.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/strict_json.h"

namespace jamba {

namespace {

/// Every dtype of the format, so that files with tensors that nobody reads still open.
constexpr std::array<std::pair<std::string_view, std::int64_t>, 15> kDtypeBytes = {{
    {"F64", 8},
    {"F32", 4},
    {"F16", 2},
    {"BF16", 2},
    {"I64", 8},
    {"I32", 4},
    {"I16", 2},
    {"I8", 1},
    {"U64", 8},
    {"U32", 4},
    {"U16", 2},
    {"U8", 1},
    {"BOOL", 1},
    {"F8_E4M3", 1},
    {"F8_E5M2", 1},
}};

std::int64_t element_bytes(const JsonObject& object, const std::string& dtype) {
  for (const auto& [name, bytes] : kDtypeBytes) {
    if (name == dtype) return bytes;
  }
  object.fail("dtype", fmt::format("'{}' is no dtype of the format", dtype));
}

SafetensorsEntry parse_entry(const std::string& name, const nlohmann::json& value,
                             std::int64_t data_bytes, const std::string& where) {
  JsonObject object(value, fmt::format("{}: tensor '{}'", where, name));
  SafetensorsEntry entry{name, object.string("dtype"), object.sizes("shape"), 0, 0};
  const std::vector<std::int64_t> offsets = object.sizes("data_offsets");
  object.expect_all_read();
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes) {
    object.fail("data_offsets", fmt::format("expected 0 <= begin <= end <= {}, got [{}]",
                                            data_bytes, fmt::join(offsets, ", ")));
  }
  const auto bytes = checked_product(entry.shape, element_bytes(object, entry.dtype));
  if (!bytes) {
    object.fail("shape", fmt::format("[{}] is too large", fmt::join(entry.shape, ", ")));
  }
  entry.begin = offsets[0];
  entry.bytes = offsets[1] - offsets[0];
  if (*bytes != entry.bytes) {
    object.fail("data_offsets", fmt::format("span {} bytes, but {}[{}] needs {}", entry.bytes,
                                            entry.dtype, fmt::join(entry.shape, ", "), *bytes));
  }
  return entry;
}

void check_metadata(const nlohmann::json& value, const std::string& where) {
  JsonObject metadata(value, where + ": __metadata__");
  for (const auto& item : value.items()) metadata.string(item.key());
}

}  // namespace

std::int64_t SafetensorsEntry::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

std::vector<SafetensorsEntry> parse_safetensors_header(std::string_view json,
                                                       std::int64_t data_bytes,
                                                       const std::string& where) {
  const nlohmann::json header = parse_strict_json(json, where);
  if (!header.is_object()) throw DataError(where + ": the header is no JSON object");
  std::vector<SafetensorsEntry> entries;
  for (const auto& item : header.items()) {
    if (item.key() == "__metadata__") {
      check_metadata(item.value(), where);
    } else {
      entries.push_back(parse_entry(item.key(), item.value(), data_bytes, where));
    }
  }
  std::sort(entries.begin(), entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::pair(a.begin, a.bytes) < std::pair(b.begin, b.bytes);
            });
  std::int64_t end = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != end) {
      throw DataError(
          fmt::format("{}: tensor '{}' starts at byte {}, but the data before it ends "
                      "at {}: {}",
                      where, entry.name, entry.begin, end,
                      entry.begin < end ? "they overlap" : "there is a hole"));
    }
    end += entry.bytes;
  }
  if (end != data_bytes) {
    throw DataError(fmt::format("{}: tensors fill {} of {} data bytes", where, end, data_bytes));
  }
  return entries;
}

}  // namespace jamba

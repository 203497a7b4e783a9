#pragma once
// Reads numbers and switches as people write them, and says in words what is wrong otherwise.

#include <cstdint>
#include <string>
#include <string_view>

namespace jamba::config {

/// 12, -3, 1_000, 1e6 and 1.5e3 (if they are whole), 4k, 3M, 2G (powers of 1000), 2Ki, 8Mi, 1Gi
/// (powers of 1024). Returns what is wrong in words, empty if `value` was set.
/// Refused: leading zeros (YAML 1.1 reads 010 as 8), hexadecimal, fractions, beyond 64 bits.
std::string parse_integer(std::string_view text, std::int64_t& value);

/// 0.1, 3e-4, 1_000, .5. Refused: infinities, NaN, leading zeros.
std::string parse_real(std::string_view text, double& value);

/// true or false, also True and TRUE. Refused: yes, no, on, off, 0, 1.
std::string parse_boolean(std::string_view text, bool& value);

/// 'text', shortened where it is long, for messages.
std::string quote(std::string_view text);

}  // namespace jamba::config

#pragma once
#include <cstddef>
#include <string_view>

namespace jamba {

/// Length of the longest prefix of `text` that is UTF-8 and ends between characters: its whole
/// length if it is valid. Overlong forms, surrogates and values above U+10FFFF are not.
std::size_t valid_utf8_prefix(std::string_view text);

}  // namespace jamba

#pragma once
#include <cstdint>
#include <string>

namespace jamba {

/// A little story in plain English, put together from a small grammar: text with structure to
/// learn, for a demo without data. The same index gives the same story.
std::string demo_story(std::uint64_t index);

}  // namespace jamba

#pragma once
#include <span>
#include <string_view>

namespace jamba::config {

/// The candidate that a person most likely meant by `typed`; empty if none is near.
/// Near: few letters inserted, dropped, changed or swapped (a third of the word, at least two); or
/// one is the other with letters left out, as attn_period is of attn_layer_period.
std::string_view nearest(std::string_view typed, std::span<const std::string_view> candidates);

}  // namespace jamba::config

#pragma once
// Sizes read from files: products that must not overflow.

#include <cstdint>
#include <optional>
#include <span>

namespace jamba {

/// The product of dims times `factor`; nothing if a dim is negative or the product exceeds int64.
inline std::optional<std::int64_t> checked_product(std::span<const std::int64_t> dims,
                                                   std::int64_t factor = 1) {
  std::int64_t product = factor;
  bool empty = false;
  for (const std::int64_t d : dims) {
    if (d < 0) return std::nullopt;
    if (d == 0) empty = true;
    if (__builtin_mul_overflow(product, d == 0 ? 1 : d, &product)) return std::nullopt;
  }
  return empty ? 0 : product;
}

}  // namespace jamba

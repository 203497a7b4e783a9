#include "kernels/core/rng.h"

#include <cmath>
#include <numbers>

#include "kernels/core/philox.h"

namespace jamba {

std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                    std::uint64_t counter_low) {
  const PhiloxWords c = philox_words(key, counter_high, counter_low);
  return {c.word[0], c.word[1], c.word[2], c.word[3]};
}

std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 14695981039346656037ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

namespace {

std::uint64_t join(std::uint32_t high, std::uint32_t low) {
  return (std::uint64_t{high} << 32) | low;
}

double to_open_unit(std::uint64_t bits) {
  return (static_cast<double>(bits >> 12) + 0.5) * 0x1.0p-52;
}

}  // namespace

std::uint64_t CounterRng::bits(std::uint64_t index) const {
  const auto r = philox(seed_, stream_, index);
  return join(r[1], r[0]);
}

double CounterRng::uniform(std::uint64_t index) const { return to_open_unit(bits(index)); }

double CounterRng::normal(std::uint64_t index) const {
  const auto r = philox(seed_, stream_, index);
  const double radius = std::sqrt(-2.0 * std::log(to_open_unit(join(r[1], r[0]))));
  return radius * std::cos(2.0 * std::numbers::pi * to_open_unit(join(r[3], r[2])));
}

std::int64_t CounterRng::below(std::uint64_t index, std::int64_t n) const {
  __extension__ using Wide = unsigned __int128;  // multiply-shift: no division, bias below 2^-40
  const Wide wide = static_cast<Wide>(bits(index)) * static_cast<std::uint64_t>(n);
  return static_cast<std::int64_t>(wide >> 64);
}

}  // namespace jamba

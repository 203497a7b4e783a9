#include "kernels/core/rng.h"

#include <cmath>
#include <numbers>

namespace jamba {

std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                    std::uint64_t counter_low) {
  std::array<std::uint32_t, 4> c = {
      static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
      static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)};
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
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

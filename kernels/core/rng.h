#pragma once
// Counter-based random numbers: a value depends on (seed, stream, index) and nothing else.

#include <array>
#include <cstdint>
#include <string_view>

namespace jamba {

/// kernels/core/philox.h.
std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                    std::uint64_t counter_low);

/// 64-bit FNV-1a, to turn a parameter's name into a stream of random numbers.
std::uint64_t hash_name(std::string_view name);

/// Random access to one stream of numbers: any shard of a tensor can draw its own elements.
class CounterRng {
 public:
  CounterRng(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  CounterRng(std::uint64_t seed, std::string_view name) : CounterRng(seed, hash_name(name)) {}

  std::uint64_t bits(std::uint64_t index) const;
  /// Uniform in (0, 1), never 0 or 1.
  double uniform(std::uint64_t index) const;
  /// Standard normal, by Box-Muller.
  double normal(std::uint64_t index) const;
  /// Uniform integer in [0, n).
  std::int64_t below(std::uint64_t index, std::int64_t n) const;

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};

}  // namespace jamba

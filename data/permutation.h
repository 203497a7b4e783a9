#pragma once
#include <cstdint>

#include "kernels/core/rng.h"

namespace jamba {

/// A random permutation of [0, size) that needs no table: any element can be asked for alone.
/// Method: a Feistel network over the next power of four, walked until it lands inside; a walk
/// takes under 4 turns on average for large sizes, and at most 256 for the smallest. Source: Black
/// and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
class Permutation {
 public:
  /// size >= 1. Different (seed, stream) give unrelated permutations.
  Permutation(std::uint64_t seed, std::uint64_t stream, std::int64_t size);

  /// The element at `index` of [0, size).
  std::int64_t operator()(std::int64_t index) const;

 private:
  std::uint64_t shuffle(std::uint64_t value) const;

  CounterRng rng_;
  std::uint64_t size_;
  int half_bits_ = 4;
};

}  // namespace jamba

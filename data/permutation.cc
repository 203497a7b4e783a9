#include "data/permutation.h"

#include "kernels/core/errors.h"

namespace jamba {

namespace {
constexpr std::uint64_t kRounds = 6;
}

Permutation::Permutation(std::uint64_t seed, std::uint64_t stream, std::int64_t size)
    : rng_(seed, stream), size_(static_cast<std::uint64_t>(size)) {
  JAMBA_CHECK(size >= 1, "permutation of {} elements", size);
  while ((std::uint64_t{1} << (2 * half_bits_)) < size_) ++half_bits_;
}

std::uint64_t Permutation::shuffle(std::uint64_t value) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_, right = value & mask;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const std::uint64_t mixed = left ^ (rng_.bits((round << 32) | right) & mask);
    left = right;
    right = mixed;
  }
  return (left << half_bits_) | right;
}

std::int64_t Permutation::operator()(std::int64_t index) const {
  auto value = static_cast<std::uint64_t>(index);
  JAMBA_CHECK(index >= 0 && value < size_, "element {} of a permutation of {}", index, size_);
  do {
    value = shuffle(value);
  } while (value >= size_);
  return static_cast<std::int64_t>(value);
}

}  // namespace jamba

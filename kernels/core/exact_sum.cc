#include "kernels/core/exact_sum.h"

#include <bit>
#include <limits>

namespace jamba {

namespace {

constexpr int kDigitBits = 32;
constexpr std::int64_t kDigitMask = 0xffffffff;
constexpr int kFractionBits = 52;
constexpr std::uint64_t kExponentMask = 0x7ff;
/// A term adds less than 2^32 to a word; the words of 2^20 joined sums begin below 2^52.
constexpr std::int64_t kTermsBetweenCarries = std::int64_t{1} << 30;

__extension__ using Wide = unsigned __int128;

/// The bits of the double nearest to integer * 2^(exponent - 1074), or to a little more. An integer
/// of 53 bits or less is exact, with exponent 0 and nothing more.
std::uint64_t nearest_bits(Wide integer, std::uint64_t exponent, bool more) {
  const auto high = static_cast<std::uint64_t>(integer >> 64);
  const auto low = static_cast<std::uint64_t>(integer);
  const int width = high != 0 ? 128 - std::countl_zero(high) : 64 - std::countl_zero(low);
  if (width <= kFractionBits + 1) return low;
  const int dropped = width - (kFractionBits + 1);
  auto kept = static_cast<std::uint64_t>(integer >> dropped);
  const Wide half = Wide{1} << (dropped - 1), rest = integer & ((half << 1) - 1);
  const bool above_half = rest > half || (rest == half && more);
  if (above_half || (rest == half && kept % 2 != 0)) ++kept;
  exponent += static_cast<std::uint64_t>(dropped);
  if (exponent >= kExponentMask - 1) return kExponentMask << kFractionBits;
  // The leading one, and a carry out of the fraction, raise the exponent by themselves.
  return (exponent << kFractionBits) + kept;
}

}  // namespace

void ExactSum::add(double term) {
  const auto bits = std::bit_cast<std::uint64_t>(term);
  const bool negative = bits >> 63 != 0;
  const std::uint64_t exponent = bits >> kFractionBits & kExponentMask;
  std::uint64_t integer = bits & ((std::uint64_t{1} << kFractionBits) - 1);
  if (exponent == kExponentMask) {
    if (integer != 0 || !negative) ++words_[kPlusInfinities];
    if (integer != 0 || negative) ++words_[kMinusInfinities];
    return;
  }
  if (exponent != 0) integer |= std::uint64_t{1} << kFractionBits;
  const std::uint64_t place = exponent == 0 ? 0 : exponent - 1;
  Wide digits = Wide{integer} << place % kDigitBits;
  for (std::size_t i = place / kDigitBits; digits != 0; ++i, digits >>= kDigitBits) {
    const auto digit = static_cast<std::int64_t>(digits & kDigitMask);
    words_[i] += negative ? -digit : digit;
  }
  if (++terms_since_carry_ == kTermsBetweenCarries) carry();
}

/// Leaves digits in [0, 2^32) in all words but the last, which holds the sign.
void ExactSum::carry() {
  for (std::size_t i = 0; i + 1 < kDigits; ++i) {
    words_[i + 1] += words_[i] >> kDigitBits;
    words_[i] &= kDigitMask;
  }
  terms_since_carry_ = 0;
}

std::span<std::int64_t> ExactSum::words() {
  carry();
  return words_;
}

double ExactSum::value() const {
  if (words_[kPlusInfinities] != 0 && words_[kMinusInfinities] != 0) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  if (words_[kPlusInfinities] != 0) return std::numeric_limits<double>::infinity();
  if (words_[kMinusInfinities] != 0) return -std::numeric_limits<double>::infinity();
  ExactSum magnitude = *this;
  magnitude.carry();
  const bool negative = magnitude.words_[kDigits - 1] < 0;
  if (negative) {
    for (std::int64_t& word : magnitude.words_) word = -word;
    magnitude.carry();
  }
  const auto& words = magnitude.words_;
  std::size_t top = kDigits - 1;
  while (top > 2 && words[top] == 0) --top;
  Wide integer = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    integer = (integer << kDigitBits) | static_cast<std::uint64_t>(words[top - i]);
  }
  bool more = false;
  for (std::size_t i = 0; i + 2 < top; ++i) more = more || words[i] != 0;
  const std::uint64_t bits = nearest_bits(integer, kDigitBits * (top - 2), more);
  return std::bit_cast<double>(bits | static_cast<std::uint64_t>(negative) << 63);
}

}  // namespace jamba

#pragma once
// A sum of doubles that does not depend on the order of its terms, nor on who added which.

#include <array>
#include <cstdint>
#include <span>

namespace jamba {

/// Adds doubles without rounding: a fixed-point number as wide as the range of double, 32 bits a
/// word, with room for carries in the upper half of each.
/// Sums of several ranks join by adding their words elementwise, as int64 (an all-reduce).
/// Limits: 2^20 sums may be joined at once, and 2^40 terms added to all of them together.
/// Determinism: value() is the double nearest to the exact sum, ties to even, for any order of the
/// terms and any split over sums. An exact sum of zero is +0. Denormal terms count, and denormal
/// values appear, even where the processor flushes them.
/// Non-finite terms are counted: the value is NaN after a NaN or both infinities, else an infinity;
/// a sum of finite terms beyond the largest double is an infinity too.
/// Source: Neal, "Fast exact summation using small and large superaccumulators", arXiv:1505.05571.
class ExactSum {
 public:
  /// 2098 bits, from the smallest denormal to the largest double; the last word takes what is
  /// above. Then counts of plus and minus infinities; a NaN counts as both.
  static constexpr std::size_t kDigits = 66;
  static constexpr std::size_t kNumWords = kDigits + 2;

  void add(double term);
  /// The sum's words, in a form that only the sum decides. Their owner may add other sums' words.
  /// Word i < kDigits has the weight 2^(32 i - 1074).
  std::span<std::int64_t> words();
  double value() const;
  void reset() { *this = {}; }

 private:
  static constexpr std::size_t kPlusInfinities = kDigits, kMinusInfinities = kDigits + 1;

  void carry();

  std::array<std::int64_t, kNumWords> words_{};
  std::int64_t terms_since_carry_ = 0;
};

}  // namespace jamba

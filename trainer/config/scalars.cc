#include "trainer/config/scalars.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace jamba::config {

namespace {

constexpr std::size_t kLongestQuote = 40;
constexpr std::int64_t kLargestExponent = 1000;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// A number as written: sign, whole digits, fraction digits, decimal exponent, then the rest.
struct Written {
  bool negative = false;
  std::string whole;
  std::string fraction;
  std::int64_t exponent = 0;
  std::string_view rest;
};

/// Takes digits off the front of `text`, with single underscores between them.
std::string take_digits(std::string_view& text) {
  std::string digits;
  std::size_t i = 0;
  while (i < text.size()) {
    const bool separator = text[i] == '_' && !digits.empty() && text[i - 1] != '_' &&
                           i + 1 < text.size() && is_digit(text[i + 1]);
    if (!is_digit(text[i]) && !separator) break;
    if (!separator) digits += text[i];
    ++i;
  }
  text.remove_prefix(i);
  return digits;
}

/// Returns false if the text does not start as a number.
bool read_written(std::string_view text, Written& out) {
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) {
    out.negative = text.front() == '-';
    text.remove_prefix(1);
  }
  out.whole = take_digits(text);
  if (!text.empty() && text.front() == '.') {
    text.remove_prefix(1);
    out.fraction = take_digits(text);
  }
  if (out.whole.empty() && out.fraction.empty()) return false;
  if (text.size() > 1 && (text.front() == 'e' || text.front() == 'E')) {
    std::string_view tail = text.substr(1);
    const bool negative = tail.front() == '-';
    if (negative || tail.front() == '+') tail.remove_prefix(1);
    const std::string digits = take_digits(tail);
    if (!digits.empty()) {
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), out.exponent);
      if (error != std::errc() || out.exponent > kLargestExponent) out.exponent = kLargestExponent;
      if (negative) out.exponent = -out.exponent;
      text = tail;
    }
  }
  out.rest = text;
  return true;
}

bool looks_octal(const Written& n) { return n.whole.size() > 1 && n.whole.front() == '0'; }

std::string octal_message(std::string_view text, const Written& n) {
  const std::size_t first = std::min(n.whole.find_first_not_of('0'), n.whole.size() - 1);
  return fmt::format("{} has a leading zero, which some readers take for octal; write {}{}",
                     quote(text), n.negative ? "-" : "", n.whole.substr(first));
}

/// The factor that a suffix stands for; 0 if it is none.
std::int64_t multiplier(std::string_view suffix) {
  struct Suffix {
    std::string_view name;
    std::int64_t factor;
  };
  constexpr Suffix kSuffixes[] = {{"", 1},
                                  {"k", 1000},
                                  {"M", 1000000},
                                  {"G", 1000000000},
                                  {"Ki", std::int64_t{1} << 10},
                                  {"Mi", std::int64_t{1} << 20},
                                  {"Gi", std::int64_t{1} << 30}};
  for (const Suffix& known : kSuffixes) {
    if (known.name == suffix) return known.factor;
  }
  return 0;
}

/// digits * 10^scale * factor. Returns false beyond 64 bits; sets `whole` to false for a fraction.
bool compose(const std::string& digits, std::int64_t scale, std::int64_t factor,
             std::int64_t& value, bool& whole) {
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc()) return false;
  if (__builtin_mul_overflow(value, factor, &value)) return false;
  for (; scale > 0 && value != 0; --scale) {
    if (__builtin_mul_overflow(value, std::int64_t{10}, &value)) return false;
  }
  for (; scale < 0 && value != 0; ++scale) {
    if (value % 10 != 0) whole = false;
    value /= 10;
  }
  return true;
}

}  // namespace

std::string quote(std::string_view text) {
  if (text.size() <= kLongestQuote) return fmt::format("'{}'", text);
  return fmt::format("'{}...'", text.substr(0, kLongestQuote));
}

std::string parse_integer(std::string_view text, std::int64_t& value) {
  Written n;
  const bool number = read_written(text, n);
  const std::int64_t factor = number ? multiplier(n.rest) : 0;
  if (factor == 0) return "expected an integer, got " + quote(text);
  if (looks_octal(n)) return octal_message(text, n);
  while (!n.fraction.empty() && n.fraction.back() == '0') n.fraction.pop_back();
  const auto scale = n.exponent - static_cast<std::int64_t>(n.fraction.size());
  std::int64_t result = 0;
  bool whole = true;
  if (!compose(n.whole + n.fraction, scale, factor, result, whole)) {
    return quote(text) + " is too large for a 64-bit integer";
  }
  if (!whole) return fmt::format("expected an integer, got {}, a fraction", quote(text));
  value = n.negative ? -result : result;
  return {};
}

std::string parse_real(std::string_view text, double& value) {
  Written n;
  if (!read_written(text, n) || !n.rest.empty()) {
    std::string lower(text);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    const std::string_view name =
        std::string_view(lower).substr(std::min(lower.find_first_not_of("+-."), lower.size()));
    if (name == "nan" || name == "inf" || name == "infinity") {
      return "must be a finite number, got " + quote(text);
    }
    return "expected a number, got " + quote(text);
  }
  if (looks_octal(n)) return octal_message(text, n);
  const std::string plain = fmt::format("{}.{}e{}", n.whole.empty() ? "0" : n.whole,
                                        n.fraction.empty() ? "0" : n.fraction, n.exponent);
  double result = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), result);
  if (error != std::errc()) {
    return quote(text) + (n.exponent < 0 ? " is too close to zero" : " is too large");
  }
  value = n.negative ? -result : result;
  return {};
}

std::string parse_boolean(std::string_view text, bool& value) {
  for (const std::string_view name : {"true", "True", "TRUE", "false", "False", "FALSE"}) {
    if (text == name) {
      value = name.front() == 't' || name.front() == 'T';
      return {};
    }
  }
  return "expected true or false, got " + quote(text);
}

}  // namespace jamba::config

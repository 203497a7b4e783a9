#include "trainer/config/nearest.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

namespace jamba::config {

namespace {

constexpr std::size_t kLongestWord = 64;

/// Optimal string alignment distance: insert, drop, change, swap neighbours.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

bool is_subsequence(std::string_view part, std::string_view whole) {
  std::size_t matched = 0;
  for (const char c : whole) {
    if (matched < part.size() && part[matched] == c) ++matched;
  }
  return matched == part.size();
}

bool is_abbreviation(std::string_view a, std::string_view b) {
  const auto& [part, whole] = a.size() < b.size() ? std::pair(a, b) : std::pair(b, a);
  return part.size() >= 3 && part.front() == whole.front() && is_subsequence(part, whole);
}

std::string normalise(std::string_view word) {
  std::string out(word);
  for (char& c : out) {
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return out;
}

}  // namespace

std::string_view nearest(std::string_view typed, std::span<const std::string_view> candidates) {
  if (typed.empty() || typed.size() > kLongestWord) return {};
  const std::string word = normalise(typed);
  std::string_view best;
  std::size_t best_distance = kLongestWord * 2;
  for (const std::string_view candidate : candidates) {
    const std::size_t d = distance(word, candidate);
    const std::size_t longest = std::max(word.size(), candidate.size());
    const bool near = d <= std::max<std::size_t>(2, word.size() / 3) && 2 * d <= longest;
    if ((near || is_abbreviation(word, candidate)) && d < best_distance) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

}  // namespace jamba::config

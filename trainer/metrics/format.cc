#include "trainer/metrics/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace jamba {
namespace {

constexpr int kMinBar = 10, kMaxBar = 30;

std::string joined(const std::vector<std::string>& fields) {
  return fmt::format("{}", fmt::join(fields, " | "));
}

std::string format_peak(double gflops) {
  return gflops < 1000 ? fmt::format("{:.0f} GF/s", gflops)
                       : fmt::format("{:.2f} TF/s", gflops / 1000);
}

std::string bar(double share, int width) {
  const int cells = width - 2;
  const int done = static_cast<int>(std::clamp(share, 0.0, 1.0) * cells);
  return fmt::format("[{:=<{}}{:{}}]", "", done, "", cells - done);
}

}  // namespace

std::string format_count(double count) {
  static constexpr std::array<const char*, 5> kSuffixes = {"", "k", "M", "B", "T"};
  if (!std::isfinite(count)) return fmt::format("{}", count);
  // 999.5 and above would round to four figures, so it moves on to the next suffix.
  std::size_t power = 0;
  while (std::abs(count) >= 999.5 && power + 1 < kSuffixes.size()) {
    count /= 1000;
    ++power;
  }
  if (power == 0) return fmt::format("{:.0f}", count);
  const double magnitude = std::abs(count);
  const int decimals = magnitude < 9.995 ? 2 : magnitude < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", count, decimals, kSuffixes[power]);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto s = static_cast<std::int64_t>(std::min(std::round(seconds), 1e15));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
}

std::string format_bytes(std::int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < std::int64_t{1} << 30) return fmt::format("{:.0f} MiB", value / 0x1p20);
  return fmt::format("{:.2f} GiB", value / 0x1p30);
}

std::string step_line(const StepRecord& r) {
  std::vector<std::string> fields = {
      fmt::format("step {}/{}", r.step, r.total_steps),
      "tokens " + format_count(static_cast<double>(r.tokens)),
      fmt::format("lm {:.4f}", r.lm_loss),
      fmt::format("aux {:.4f}", r.aux_loss),
      fmt::format("z {:.4f}", r.z_loss),
      fmt::format("gn {:.3f}", r.grad_norm),
      fmt::format("lr {:.2e}", r.lr),
      format_count(r.tokens_per_second) + " tok/s",
      fmt::format("mfu {:.0f}% of {}", 100 * r.mfu, format_peak(r.peak_gflops)),
      "mem " + format_bytes(r.peak_memory_bytes),
      fmt::format("load {:.2f}", r.expert_load_max),
      "left " + format_duration(r.seconds_left)};
  if (r.dropped_rows > 0) fields.push_back(fmt::format("dropped {}", r.dropped_rows));
  if (r.skipped_steps > 0) fields.push_back(fmt::format("skipped {}", r.skipped_steps));
  return joined(fields);
}

std::string progress_line(const StepRecord& r, int columns) {
  const int width = std::max(columns - 1, 0);
  const double share =
      r.total_steps > 0 ? static_cast<double>(r.step) / static_cast<double>(r.total_steps) : 0;
  const std::vector<std::string> by_importance = {
      fmt::format("step {}/{}", r.step, r.total_steps),
      fmt::format("lm {:.4f}", r.lm_loss),
      "left " + format_duration(r.seconds_left),
      format_count(r.tokens_per_second) + " tok/s",
      fmt::format("gn {:.3f}", r.grad_norm),
      fmt::format("lr {:.2e}", r.lr),
      fmt::format("mfu {:.0f}% of {}", 100 * r.mfu, format_peak(r.peak_gflops)),
      "mem " + format_bytes(r.peak_memory_bytes),
      fmt::format("load {:.2f}", r.expert_load_max),
      "tokens " + format_count(static_cast<double>(r.tokens)),
      fmt::format("aux {:.4f}", r.aux_loss)};
  std::string text = fmt::format("{:3.0f}%", std::floor(100 * share));
  const auto room = [&] { return width - static_cast<int>(text.size()); };
  for (std::size_t i = 0; i < by_importance.size(); ++i) {
    // Before the first two, the bar may go; after them, it stays.
    const int reserved = i < 2 ? 0 : kMinBar + 1;
    const std::string field = (i == 0 ? " " : " | ") + by_importance[i];
    if (static_cast<int>(field.size()) + reserved > room()) break;
    text += field;
  }
  if (room() > kMinBar) text = bar(share, std::min(room() - 1, kMaxBar)) + " " + text;
  text.resize(static_cast<std::size_t>(width), ' ');
  return text;
}

std::string traffic_line(const StepRecord& r) {
  std::vector<std::string> fields;
  for (const auto& [axis, bytes] : r.sent_bytes) {
    if (bytes == 0) continue;
    fields.push_back(fmt::format("{} {}B", axis, format_count(static_cast<double>(bytes))));
  }
  return "traffic rank 0 sends in a step: " + joined(fields);
}

std::string eval_line(const EvalRecord& record) {
  std::vector<std::string> fields = {fmt::format("eval step {}", record.step)};
  for (const EvalRecord::Source& s : record.sources) {
    fields.push_back(fmt::format("{} {:.4f} (ppl {:.4g}, {:.2f} nats below unigram {:.2f})", s.name,
                                 s.loss, std::exp(s.loss), s.unigram_entropy - s.loss,
                                 s.unigram_entropy));
  }
  fields.push_back(fmt::format("mean {:.4f}", record.mean_loss));
  return joined(fields);
}

}  // namespace jamba

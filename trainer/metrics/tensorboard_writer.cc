#include "trainer/metrics/tensorboard_writer.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <vector>

#include "kernels/core/errors.h"
#include "trainer/metrics/event_file.h"

namespace jamba {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

double wall_time() {
  using std::chrono::system_clock;
  return std::chrono::duration<double>(system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "unknown";
  return name.data();
}

/// The time in an event file's name; 0 for any other file.
std::int64_t time_in_name(const std::string& name) {
  std::int64_t seconds = 0;
  if (!name.starts_with(kPrefix)) return 0;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), seconds);
  return seconds;
}

/// Clocks step back, and a run may restart within a second: order by name must still be order of
/// writing.
std::string new_file_path(const std::string& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  auto seconds = static_cast<std::int64_t>(wall_time());
  if (!error) {
    for (fs::directory_iterator it(directory, error), end; !error && it != end;
         it.increment(error)) {
      seconds = std::max(seconds, time_in_name(it->path().filename().string()) + 1);
    }
  }
  if (error) {
    throw CannotCreateError(fmt::format("cannot create TensorBoard directory {}: {} (errno {})",
                                        directory, error.message(), error.value()));
  }
  return fs::path(directory) / fmt::format("{}{:010}.{}", kPrefix, seconds, host_name());
}

std::vector<ScalarValue> scalars(const StepRecord& r) {
  std::vector<ScalarValue> values = {
      {"train/loss", r.loss},
      {"train/lm_loss", r.lm_loss},
      {"train/aux_loss", r.aux_loss},
      {"train/z_loss", r.z_loss},
      {"train/activation_loss", r.activation_loss},
      {"train/grad_norm", r.grad_norm},
      {"train/lr", r.lr},
      {"train/skipped_steps", static_cast<double>(r.skipped_steps)},
      {"perf/tokens_per_sec", r.tokens_per_second},
      {"perf/mfu_pct", 100 * r.mfu},
      {"perf/peak_gflops", r.peak_gflops},
      {"perf/step_ms", 1e3 * r.step_seconds},
      {"mem/peak_GiB", static_cast<double>(r.peak_memory_bytes) / 0x1p30},
      {"moe/max_load", r.expert_load_max},
      {"moe/router_entropy", r.expert_entropy},
      {"moe/dropped_rows", static_cast<double>(r.dropped_rows)},
      {"progress/tokens", static_cast<double>(r.tokens)},
      {"progress/eta_s", r.seconds_left}};
  for (int part = 0; r.seconds && part < kNumParts; ++part) {
    values.push_back({fmt::format("perf/{}_ms", part_name(static_cast<Part>(part))),
                      1e3 * (*r.seconds)[static_cast<std::size_t>(part)]});
  }
  return values;
}

std::vector<ScalarValue> scalars(const EvalRecord& record) {
  std::vector<ScalarValue> values = {{"val/loss", record.mean_loss},
                                     {"val/ppl", std::exp(record.mean_loss)}};
  for (const EvalRecord::Source& source : record.sources) {
    values.push_back({fmt::format("val/{}/loss", source.name), source.loss});
    values.push_back({fmt::format("val/{}/unigram_entropy", source.name), source.unigram_entropy});
  }
  return values;
}

}  // namespace

TensorboardWriter::TensorboardWriter(const std::string& directory,
                                     std::optional<std::int64_t> resumed_step)
    : file_(new_file_path(directory), AppendFile::Open::must_be_new) {
  const double now = wall_time();
  file_.append(frame_record(version_event(now)));
  if (resumed_step) file_.append(frame_record(restart_event(now, *resumed_step + 1)));
}

void TensorboardWriter::write(const StepRecord& record) {
  file_.append(frame_record(scalar_event(wall_time(), record.step, scalars(record))));
}

void TensorboardWriter::write(const EvalRecord& record) {
  file_.append(frame_record(scalar_event(wall_time(), record.step, scalars(record))));
}

void TensorboardWriter::write_text(std::string_view tag, std::string_view markdown,
                                   std::int64_t step) {
  file_.append(frame_record(text_event(wall_time(), step, tag, markdown)));
}

}  // namespace jamba

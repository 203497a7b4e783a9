#pragma once
// TensorBoard event files of a run.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "trainer/metrics/append_file.h"
#include "trainer/metrics/step_record.h"

namespace jamba {

/// Writes one new file, events.out.tfevents.<unix time>.<host>, into a directory that it creates
/// if needed. Every process that writes a run adds a file; TensorBoard reads them in the order of
/// their names, so the time in the name is made later than that of any file already there.
/// Tags: train/*, val/*, perf/*, mem/*, moe/*, progress/*.
/// Errors: CannotCreateError for the directory or the file, IoError from writing.
class TensorboardWriter {
 public:
  /// resumed_step: the last step that counts, if the run continues from a checkpoint. TensorBoard
  /// drops what earlier files hold beyond it.
  explicit TensorboardWriter(const std::string& directory,
                             std::optional<std::int64_t> resumed_step = std::nullopt);

  void write(const StepRecord&);
  void write(const EvalRecord&);
  /// Markdown in the text tab, such as a run's config.
  void write_text(std::string_view tag, std::string_view markdown, std::int64_t step);

  const std::string& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace jamba

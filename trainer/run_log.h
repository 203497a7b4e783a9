#pragma once
// Where a run's records go on rank 0; other ranks keep silent.

#include <memory>
#include <optional>
#include <string>

#include "trainer/metrics/console.h"
#include "trainer/metrics/jsonl_writer.h"
#include "trainer/metrics/tensorboard_writer.h"
#include "trainer/run_config.h"

namespace jamba {

class RunLog {
 public:
  /// A log that drops everything.
  RunLog() = default;
  /// Writes config.yaml and config.json into the run directory, which is there.
  /// resumed_step: the step that the run continues after; records beyond it are dropped.
  /// Errors: CannotCreateError, IoError.
  RunLog(const RunConfig&, std::optional<std::int64_t> resumed_step);

  void write(const StepRecord&, bool to_console);
  void write(const EvalRecord&);
  void message(const std::string& line);
  void finish();

 private:
  std::unique_ptr<Console> console_;
  std::unique_ptr<JsonlWriter> jsonl_;
  std::unique_ptr<TensorboardWriter> tensorboard_;
};

}  // namespace jamba

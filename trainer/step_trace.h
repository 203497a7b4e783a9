#pragma once
#include <string>

#include "kernels/core/trace.h"
#include "parallel/comm/communicator.h"

namespace jamba {

/// Records some steps of all ranks, and writes them as one file for chrome://tracing.
class StepTrace {
 public:
  explicit StepTrace(std::string path) : path_(std::move(path)), trace_(kMaxEvents) {}

  /// Operations on the stream are recorded from here on.
  void begin(Stream&);
  /// No longer. All ranks together: rank 0 writes the file.
  /// Errors: IoError, on all ranks.
  void finish(Stream&, Communicator& world);

  const Trace& trace() const { return trace_; }

 private:
  static constexpr std::size_t kMaxEvents = 400'000;

  std::string path_;
  Trace trace_;
};

}  // namespace jamba

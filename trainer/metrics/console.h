#pragma once
// The run as a person follows it: a progress bar on a terminal, plain lines anywhere else.

#include <cstdio>
#include <string_view>

#include "trainer/metrics/step_record.h"

namespace jamba {

/// Writes to a stream that the caller owns and keeps open. On a terminal, steps redraw one line of
/// the terminal's present width, and everything else is printed above it.
/// Errors: IoError if the stream does not take a line.
class Console {
 public:
  explicit Console(std::FILE* out);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void step(const StepRecord&);
  void eval(const EvalRecord&);
  void message(std::string_view line);
  /// Leaves the last state of the bar in place, on a line of its own. Idempotent.
  void finish();

 private:
  void print(std::string_view line);
  void put(std::string_view text);

  std::FILE* out_;
  bool is_terminal_;
  std::size_t bar_columns_ = 0;  // of the bar now on the screen; 0: none
};

}  // namespace jamba

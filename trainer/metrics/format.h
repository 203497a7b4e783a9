#pragma once
// How figures read for people: pure functions, ASCII, no line ends.

#include <cstdint>
#include <string>

#include "trainer/metrics/step_record.h"

namespace jamba {

/// "950", "38.2k", "78.6M", "1.25B": three figures, thousands by suffix.
std::string format_count(double count);
/// "42s", "3m05s", "1h12m", "2d03h"; "?" unless finite and at least 0.
std::string format_duration(double seconds);
/// "512 MiB", "1.70 GiB".
std::string format_bytes(std::int64_t bytes);

/// The whole step in one line: step, tokens, losses, gradient norm, learning rate, tokens/s, MFU
/// and its peak, peak memory, expert load, time left; skipped steps once there are any.
std::string step_line(const StepRecord&);

/// Progress on a terminal of this width: a bar, then as many of the figures, the most telling
/// first, as fit. Always columns - 1 characters, so that it erases the line before it and leaves
/// the cursor on its row.
std::string progress_line(const StepRecord&, int columns);

/// "traffic rank 0 sends in a step: tp 12.6MB | data 3.1MB | world 9.3kB"; axes without any are
/// left out.
std::string traffic_line(const StepRecord&);

/// Loss, perplexity, and distance below the unigram entropy by source; then the mean.
std::string eval_line(const EvalRecord&);

}  // namespace jamba

#include "trainer/metrics/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/core/errors.h"
#include "trainer/metrics/format.h"

namespace jamba {
namespace {

/// A terminal that can rewrite a line. mpirun gives its ranks a terminal even when its own output
/// is a file; scripts/launch says so with TERM=dumb.
bool shows_progress(std::FILE* out) {
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(out)) == 1 && (term == nullptr || std::strcmp(term, "dumb") != 0);
}

int terminal_columns(std::FILE* out) {
  winsize size{};
  constexpr int kUsual = 80;
  return ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace

Console::Console(std::FILE* out) : out_(out), is_terminal_(shows_progress(out)) {}

// Of a failure here nobody is left to be told.
Console::~Console() {
  if (bar_columns_ > 0) std::fputs("\n", out_);
}

void Console::step(const StepRecord& record) {
  if (!is_terminal_) return print(step_line(record));
  const std::string line = progress_line(record, terminal_columns(out_));
  put(fmt::format("\r{}", line));
  bar_columns_ = line.size();
}

void Console::eval(const EvalRecord& record) { print(eval_line(record)); }

void Console::message(std::string_view line) { print(line); }

void Console::finish() {
  if (bar_columns_ == 0) return;
  bar_columns_ = 0;
  put("\n");
}

void Console::print(std::string_view line) {
  const std::string erase =
      bar_columns_ > 0 ? fmt::format("\r{:{}}\r", "", bar_columns_) : std::string();
  bar_columns_ = 0;
  put(fmt::format("{}{}\n", erase, line));
}

void Console::put(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), out_) == text.size() && std::fflush(out_) == 0) {
    return;
  }
  throw IoError(fmt::format("cannot write progress to standard output or the log: {} (errno {})",
                            std::strerror(errno), errno));
}

}  // namespace jamba

#include "trainer/metrics/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "kernels/core/errors.h"
#include "trainer/metrics/format.h"

namespace jamba {
namespace {

int terminal_columns(std::FILE* out) {
  winsize size{};
  constexpr int kUsual = 80;
  return ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace

Console::Console(std::FILE* out) : out_(out), is_terminal_(::isatty(::fileno(out)) == 1) {}

Console::~Console() {
  try {
    finish();
  } catch (const IoError&) {
    // Nothing is left to report it to.
  }
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

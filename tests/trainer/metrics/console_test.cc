#include "trainer/metrics/console.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>

#include "kernels/core/errors.h"
#include "tests/trainer/metrics/metrics_fixture.h"
#include "trainer/metrics/format.h"

namespace jamba {
namespace {

using test::read_file;
using test::sample_eval;
using test::sample_step;

std::string bar(const StepRecord& record, int columns) {
  return fmt::format("\r{}", progress_line(record, columns));
}

using ConsoleFile = test::MetricsTest;

TEST_F(ConsoleFile, GetsPlainLinesAtOnce) {
  std::FILE* out = std::fopen(file("log").c_str(), "w");
  ASSERT_NE(out, nullptr);
  Console console(out);
  console.step(sample_step(1));
  EXPECT_EQ(read_file(file("log")), fmt::format("{}\n", step_line(sample_step(1))));
  console.message("saved step 1");
  console.eval(sample_eval(1));
  console.finish();
  EXPECT_EQ(read_file(file("log")), fmt::format("{}\nsaved step 1\n{}\n", step_line(sample_step(1)),
                                                eval_line(sample_eval(1))));
  std::fclose(out);
}

TEST_F(ConsoleFile, ThatIsFullIsAnError) {
  std::FILE* out = std::fopen("/dev/full", "w");
  ASSERT_NE(out, nullptr);
  Console console(out);
  EXPECT_THAT(test::message_of<IoError>([&] { console.step(sample_step(1)); }),
              ::testing::HasSubstr("(errno " + std::to_string(ENOSPC) + ")"));
  std::fclose(out);
}

/// A pseudo-terminal: what is written to out() can be read back.
class Terminal {
 public:
  explicit Terminal(int columns, const char* term = "xterm")
      : master_(::posix_openpt(O_RDWR | O_NOCTTY)) {
    ::setenv("TERM", term, 1);
    if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0) {
      throw std::runtime_error("no pseudo-terminal");
    }
    out_ = std::fopen(::ptsname(master_), "w");
    if (out_ == nullptr) throw std::runtime_error("cannot open the pseudo-terminal");
    termios mode{};
    ::tcgetattr(::fileno(out_), &mode);
    mode.c_oflag &= ~static_cast<tcflag_t>(OPOST);  // or "\n" would come back as "\r\n"
    ::tcsetattr(::fileno(out_), TCSANOW, &mode);
    resize(columns);
  }
  ~Terminal() {
    std::fclose(out_);
    ::close(master_);
  }
  void resize(int columns) const {
    winsize size{};
    size.ws_col = static_cast<unsigned short>(columns);
    ::ioctl(master_, TIOCSWINSZ, &size);
  }
  std::FILE* out() const { return out_; }
  /// What was written since the last call; empty if nothing comes.
  std::string read() const {
    pollfd ready{.fd = master_, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 2000) <= 0) return "";
    char buffer[4096];
    const ssize_t count = ::read(master_, buffer, sizeof buffer);
    return count > 0 ? std::string(buffer, static_cast<std::size_t>(count)) : "";
  }

 private:
  int master_;
  std::FILE* out_ = nullptr;
};

TEST(ConsoleTerminal, RedrawsOneLineOfTheTerminalsWidth) {
  const Terminal terminal(80);
  Console console(terminal.out());
  console.step(sample_step(1));
  EXPECT_EQ(terminal.read(), bar(sample_step(1), 80));
  terminal.resize(120);
  console.step(sample_step(2));
  EXPECT_EQ(terminal.read(), bar(sample_step(2), 120));
  console.finish();
  EXPECT_EQ(terminal.read(), "\n");
}

TEST(ConsoleTerminal, PrintsOtherLinesInPlaceOfTheBar) {
  const Terminal terminal(40);
  Console console(terminal.out());
  console.message("start");
  EXPECT_EQ(terminal.read(), "start\n");
  console.step(sample_step(1));
  terminal.read();
  console.eval(sample_eval(1));
  EXPECT_EQ(terminal.read(), fmt::format("\r{:39}\r{}\n", "", eval_line(sample_eval(1))));
  console.message("saved");
  EXPECT_EQ(terminal.read(), "saved\n");
}

TEST(ConsoleTerminal, PrintsLinesOnADumbOne) {
  const Terminal terminal(80, "dumb");
  Console console(terminal.out());
  console.step(sample_step(1));
  EXPECT_EQ(terminal.read(), step_line(sample_step(1)) + "\n");
}

TEST(ConsoleTerminal, LeavesTheBarOnItsOwnLineWhenItGoes) {
  const Terminal terminal(0);  // a terminal that does not know its width
  {
    Console console(terminal.out());
    console.step(sample_step(1));
    EXPECT_EQ(terminal.read(), bar(sample_step(1), 80));
  }
  EXPECT_EQ(terminal.read(), "\n");
}

}  // namespace
}  // namespace jamba

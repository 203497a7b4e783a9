#include "trainer/metrics/append_file.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cerrno>
#include <csignal>

#include "kernels/core/errors.h"
#include "tests/trainer/metrics/metrics_fixture.h"

namespace jamba {
namespace {

using test::message_of;
using test::read_file;
using ::testing::AllOf;
using ::testing::HasSubstr;

using AppendFileTest = test::MetricsTest;

std::string errno_text(int code) { return "(errno " + std::to_string(code) + ")"; }

TEST_F(AppendFileTest, AppendsAndTruncates) {
  AppendFile a(file("a"), AppendFile::Open::append);
  a.append("one\n");
  a.append("two\n");
  EXPECT_EQ(a.size(), 8);
  EXPECT_EQ(read_file(file("a")), "one\ntwo\n");
  a.truncate(4);
  a.append("three\n");
  EXPECT_EQ(read_file(file("a")), "one\nthree\n");
}

TEST_F(AppendFileTest, RefusesAFileThatMustBeNewAndIsNot) {
  AppendFile(file("a"), AppendFile::Open::append).append("x");
  EXPECT_THAT(
      message_of<CannotCreateError>([&] { AppendFile(file("a"), AppendFile::Open::must_be_new); }),
      AllOf(HasSubstr(file("a")), HasSubstr(errno_text(EEXIST))));
}

TEST_F(AppendFileTest, TellsPathAndErrnoOfAFileThatCannotBeCreated) {
  const std::string path = file("no/such/folder/a");
  EXPECT_THAT(message_of<CannotCreateError>([&] { AppendFile(path, AppendFile::Open::append); }),
              AllOf(HasSubstr(path), HasSubstr(errno_text(ENOENT))));
}

TEST_F(AppendFileTest, TellsPathAndErrnoOfAFullDisk) {
  AppendFile full("/dev/full", AppendFile::Open::append);
  EXPECT_THAT(message_of<IoError>([&] { full.append("x"); }),
              AllOf(HasSubstr("/dev/full"), HasSubstr(errno_text(ENOSPC))));
}

/// The largest file that this process may write, for its lifetime.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(AppendFileTest, TakesBackARecordThatFitsOnlyInPart) {
  AppendFile a(file("a"), AppendFile::Open::append);
  a.append("0123456789\n");
  {
    const FileSizeLimit limit(15);
    EXPECT_THAT(message_of<IoError>([&] { a.append("0123456789\n"); }),
                HasSubstr(errno_text(EFBIG)));
  }
  EXPECT_EQ(read_file(file("a")), "0123456789\n");
}

}  // namespace
}  // namespace jamba

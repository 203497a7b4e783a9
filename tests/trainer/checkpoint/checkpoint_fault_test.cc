// Saves that fail: whatever the system refuses, all ranks learn it and the old checkpoint stays.
//
// This program stands between the code and the system: the functions below replace the C library's,
// for the HDF5 library too.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

#include "parallel/comm/thread_group.h"
#include "tests/trainer/checkpoint/checkpoint_support.h"

namespace {

/// Calls left until the one that fails; negative: none will.
std::atomic<int> calls_left{-1};
std::atomic<bool> failed{false};

bool fails_now() {
  if (calls_left.load() < 0) return false;
  if (calls_left.fetch_sub(1) != 0) return false;
  failed = true;
  errno = EIO;
  return true;
}

}  // namespace

extern "C" {

int fsync(int fd) {
  if (fails_now()) return -1;
  return static_cast<int>(::syscall(SYS_fsync, fd));
}
int rename(const char* from, const char* to) noexcept {
  if (fails_now()) return -1;
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int mkdir(const char* path, mode_t mode) noexcept {
  if (fails_now()) return -1;
  return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
ssize_t write(int fd, const void* data, size_t bytes) {
  if (fails_now()) return -1;
  return ::syscall(SYS_write, fd, data, bytes);
}
ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  if (fails_now()) return -1;
  return ::syscall(SYS_pwrite64, fd, data, bytes, offset);
}
ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t offset) {
  if (fails_now()) return -1;
  return ::syscall(SYS_pwrite64, fd, data, bytes, offset);
}

}  // extern "C"

namespace jamba::test {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

/// The errors of all ranks of one save; empty texts if it succeeded.
std::vector<std::string> save_errors(const std::string& root, std::int64_t step, int ranks) {
  std::vector<std::string> errors(static_cast<std::size_t>(ranks));
  run_ranks(ranks, [&](Communicator& comm) {
    State state(logical_tensors(), 0, ranks, comm.rank());
    state.fill(static_cast<std::uint64_t>(step));
    try {
      save_checkpoint(comm, root, info_of_step(step), state.slices());
    } catch (const Error& e) {
      const bool right = e.on_all_ranks() && (e.exit_code() == ExitCode::io ||
                                              e.exit_code() == ExitCode::cannot_create);
      errors[static_cast<std::size_t>(comm.rank())] = right ? e.what() : "wrong type of error";
    }
  });
  return errors;
}

TEST(SaveFaults, AnyRefusedCallReachesAllRanksAndHarmsNothing) {
  const TemporaryDirectory root;
  save_state(root.path(), 1, 1, 2);
  std::vector<std::string> messages;
  for (int faults = 0;; ++faults) {
    failed = false;
    calls_left = faults;
    const auto errors = save_errors(root.path(), 2, 2);
    calls_left = -1;
    if (!failed) break;
    messages.push_back(errors[0]);
    SCOPED_TRACE(fmt::format("call {}: {}", faults, errors[0]));
    ASSERT_THAT(errors, Each(AllOf(Eq(errors[0]), HasSubstr(root.path()), StartsWith("rank "),
                                   HasSubstr("errno"))));
    EXPECT_THAT(errors[0], HasSubstr("Input/output error"));
    EXPECT_THAT(names_in(root.path()), Not(Contains(StartsWith(".tmp"))));
    expect_loads(root / "step-00000001", 1);
    // After the rename the new one is whole, even if its permanence is in doubt.
    if (find_latest(root.path())->manifest.info.step == 2) expect_loads(root / "step-00000002", 2);
    std::filesystem::remove_all(root / "step-00000002");
  }
  // The whole protocol was in reach.
  for (const char* part : {"cannot create", "rank-00000.h5: cannot", "rank-00001.h5: cannot",
                           ".h5: fsync", "tokenizer.model: write", "MANIFEST.json: write",
                           "MANIFEST.json: fsync", "step-00000002: fsync", "cannot rename"}) {
    EXPECT_THAT(messages, Contains(HasSubstr(part)));
  }
  expect_loads(root / "step-00000002", 2);
}

/// No file may grow beyond this while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
};

TEST(SaveFaults, FilesThatCannotGrow) {
  const TemporaryDirectory root;
  save_state(root.path(), 1, 1, 2);
  bool succeeded = false;
  for (rlim_t limit = 0; !succeeded; limit += 503) {
    std::vector<std::string> errors;
    {
      const FileSizeLimit scope(limit);
      errors = save_errors(root.path(), 2, 2);
    }
    succeeded = errors[0].empty();
    if (succeeded) break;
    SCOPED_TRACE(fmt::format("limit {}: {}", limit, errors[0]));
    EXPECT_THAT(errors, AllOf(SizeIs(2), Each(AllOf(Eq(errors[0]), HasSubstr("File too large")))));
    EXPECT_THAT(names_in(root.path()), ElementsAre("step-00000001"));
    expect_loads(root / "step-00000001", 1);
  }
  expect_loads(root / "step-00000002", 2);
}

/// A small file system of its own.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& path) : path_(path) {
    std::filesystem::create_directory(path);
    mounted_ = ::mount("tmpfs", path.c_str(), "tmpfs", 0, "size=100k") == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  std::string path_;
  bool mounted_;
};

TEST(SaveFaults, AFullDisk) {
  const TemporaryDirectory parent;
  const std::string root = parent / "disk";
  const SmallDisk disk(root);
  if (!disk.mounted()) GTEST_SKIP() << "needs the right to mount a tmpfs";
  int saves = 0;
  std::vector<std::string> errors;
  for (; saves < 20; ++saves) {
    errors = save_errors(root, saves, 2);
    if (!errors[0].empty()) break;
  }
  ASSERT_GT(saves, 0);
  EXPECT_THAT(errors, Each(AllOf(Eq(errors[0]), HasSubstr("No space left on device"))));
  EXPECT_THAT(names_in(root), SizeIs(saves));
  expect_loads(checkpoint_path(root, saves - 1), static_cast<std::uint64_t>(saves - 1));
  prune(root, 1);
  EXPECT_THAT(save_errors(root, saves, 2), Each(Eq("")));  // the failed one left no space behind
}

TEST(SaveFaults, NoPlaceToSave) {
  const TemporaryDirectory root;
  write_bytes(root / "file", "");
  for (const std::string& path :
       {root / "file", root / "file/below", std::string("/proc/none/x")}) {
    const auto errors = save_errors(path, 1, 3);
    EXPECT_THAT(errors, Each(AllOf(Eq(errors[0]), StartsWith("rank 0 of 3"), HasSubstr(path),
                                   HasSubstr("cannot create"), HasSubstr("errno"))));
  }
}

TEST(SaveFaults, OneRankCannotWrite) {
  const TemporaryDirectory root;
  save_state(root.path(), 1, 1, 2);
  std::vector<std::string> errors(2);
  run_ranks(2, [&](Communicator& comm) {
    State state(logical_tensors(), 0, 2, comm.rank());
    std::vector<StateSlice> slices = state.slices();
    if (comm.rank() == 1) slices[0].offset[0] += 5;  // beyond the tensor: a bug on this rank only
    try {
      save_checkpoint(comm, root.path(), info_of_step(2), slices);
    } catch (const LogicError& e) {
      errors[static_cast<std::size_t>(comm.rank())] = e.what();
    }
  });
  EXPECT_THAT(errors, Each(AllOf(StartsWith("rank 1 of 2"), HasSubstr("embed_tokens"))));
  EXPECT_THAT(names_in(root.path()), ElementsAre("step-00000001"));
}

}  // namespace
}  // namespace jamba::test

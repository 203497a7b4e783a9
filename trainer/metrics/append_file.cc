#include "trainer/metrics/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/errors.h"

namespace jamba {

void AppendFile::close_descriptor(int descriptor) { ::close(descriptor); }

AppendFile::AppendFile(std::string path, Open how) : path_(std::move(path)) {
  const int flags =
      O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (how == Open::must_be_new ? O_EXCL : 0);
  descriptor_ = decltype(descriptor_)(::open(path_.c_str(), flags, 0644));
  if (!descriptor_) {
    throw CannotCreateError(fmt::format("cannot open {} for writing: {} (errno {})", path_,
                                        std::strerror(errno), errno));
  }
}

void AppendFile::fail(const char* what) const {
  const int code = errno;
  throw IoError(fmt::format("cannot {} {}: {} (errno {})", what, path_, std::strerror(code), code));
}

std::int64_t AppendFile::size() const {
  struct stat status {};
  if (::fstat(descriptor_.get(), &status) != 0) fail("read the size of");
  return status.st_size;
}

void AppendFile::append(std::string_view record) {
  const std::int64_t before = size();
  while (!record.empty()) {
    const ssize_t written = ::write(descriptor_.get(), record.data(), record.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      const int code = errno;
      // Half a record would spoil the file for every reader. If this fails too, the first error is
      // still the one to report.
      [[maybe_unused]] const int ignored = ::ftruncate(descriptor_.get(), before);
      errno = code;
      fail("append to");
    }
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

void AppendFile::truncate(std::int64_t bytes) {
  if (::ftruncate(descriptor_.get(), bytes) != 0) fail("truncate");
}

}  // namespace jamba

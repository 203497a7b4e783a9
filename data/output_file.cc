#include "data/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

[[noreturn]] void throw_errno(const std::string& path, const char* what, int error) {
  throw IoError(fmt::format("{}: {}: {} (errno {})", path, what, std::strerror(error), error));
}

void sync(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_errno(path, "cannot open to sync", errno);
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (error != 0) throw_errno(path, "cannot sync", error);
}

}  // namespace

std::string claim_output(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) {
    throw CannotCreateError(fmt::format("{}: exists already: remove it to write it anew", path));
  }
  std::string partial = path + ".partial";
  ::unlink(partial.c_str());
  return partial;
}

void publish_output(const std::string& partial, const std::string& path) {
  sync(partial);
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    throw_errno(path, "cannot rename the finished file to this name", errno);
  }
  const std::string parent = std::filesystem::path(path).parent_path().string();
  sync(parent.empty() ? "." : parent);
}

}  // namespace jamba

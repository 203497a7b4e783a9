#include "trainer/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "kernels/core/errors.h"

namespace jamba {

RunDirectory::RunDirectory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    throw CannotCreateError(
        fmt::format("{}: cannot create the run directory: {}", path, error.message()));
  }
  const std::string lock = path + "/.lock";
  lock_ = UniqueFd(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!lock_) {
    throw CannotCreateError(
        fmt::format("{}: cannot be opened: {}", lock, std::generic_category().message(errno)));
  }
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw CannotCreateError(fmt::format(
        "{}: another job is training in this run directory. Wait until it ends, or set another "
        "run_dir",
        path));
  }
}

}  // namespace jamba

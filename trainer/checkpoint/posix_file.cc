#include "trainer/checkpoint/posix_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "kernels/core/errors.h"

namespace jamba {

namespace {

// Linux moves at most 0x7ffff000 bytes a call.
constexpr std::int64_t kMaxTransfer = 1 << 30;

std::int64_t transfer_size(std::int64_t bytes) { return std::min(bytes, kMaxTransfer); }

}  // namespace

void close_fd(int fd) { ::close(fd); }

std::string system_message(const std::string& path, const char* what) {
  const int error = errno;
  return fmt::format("{}: {}: {} (errno {})", path, what, std::strerror(error), error);
}

UniqueFd open_for_reading(const std::string& path, Links links) {
  const int no_follow = links == Links::refuse ? O_NOFOLLOW : 0;
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | no_follow));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR)
      throw NoInputError(system_message(path, "cannot open"));
    if (errno == ELOOP) throw DataError(path + ": is a symbolic link, expected a regular file");
    throw IoError(system_message(path, "cannot open"));
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw IoError(system_message(path, "fstat"));
  if (!S_ISREG(info.st_mode)) throw DataError(path + ": is not a regular file");
  return fd;
}

std::int64_t file_size(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) throw IoError(system_message(path, "fstat"));
  return info.st_size;
}

void read_at(int fd, const std::string& path, std::int64_t offset, void* out, std::int64_t bytes) {
  auto* at = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t got =
        ::pread(fd, at, static_cast<std::size_t>(transfer_size(bytes)), static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw IoError(system_message(path, "read"));
    }
    if (got == 0) {
      throw IoError(fmt::format("{}: ends at byte {}, {} bytes too early", path, offset, bytes));
    }
    at += got;
    offset += got;
    bytes -= got;
  }
}

std::string read_file(const std::string& path, Links links, std::int64_t max_bytes) {
  const UniqueFd fd = open_for_reading(path, links);
  const std::int64_t size = file_size(fd.get(), path);
  if (size > max_bytes) {
    throw DataError(fmt::format("{}: {} bytes, expected at most {}", path, size, max_bytes));
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  read_at(fd.get(), path, 0, text.data(), size);
  return text;
}

UniqueFd create_file(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) throw CannotCreateError(system_message(path, "cannot create"));
  return fd;
}

void write_all(int fd, const std::string& path, const void* data, std::int64_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(fd, at, static_cast<std::size_t>(transfer_size(bytes)));
    if (done < 0) {
      if (errno == EINTR) continue;
      throw IoError(system_message(path, "write"));
    }
    at += done;
    bytes -= done;
  }
}

void sync_fd(int fd, const std::string& path) {
  if (::fsync(fd) != 0) throw IoError(system_message(path, "fsync"));
}

void sync_path(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) throw IoError(system_message(path, "cannot open to fsync"));
  sync_fd(fd.get(), path);
}

void write_new_file(const std::string& path, std::string_view content) {
  const UniqueFd fd = create_file(path);
  write_all(fd.get(), path, content.data(), static_cast<std::int64_t>(content.size()));
  sync_fd(fd.get(), path);
}

void rename_path(const std::string& from, const std::string& to) {
  const std::string what = "cannot rename to " + to;
  if (::rename(from.c_str(), to.c_str()) != 0) throw IoError(system_message(from, what.c_str()));
}

void replace_path(const std::string& from, const std::string& to, const std::string& aside) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  rename_path(to, aside);
  rename_path(from, to);
}

}  // namespace jamba

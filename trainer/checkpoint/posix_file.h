#pragma once
// Files by their descriptors: checked reads, durable writes, errors that carry path and errno.

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/core/handle.h"

namespace jamba {

void close_fd(int fd);
using UniqueFd = UniqueHandle<int, close_fd, -1>;

/// Whether the last component of a path may be a symbolic link.
enum class Links { follow, refuse };

/// Opens a regular file for reading. Never blocks on a pipe or device.
/// Errors: NoInputError if it is missing, DataError if it is a refused link or no regular file,
/// IoError otherwise.
UniqueFd open_for_reading(const std::string& path, Links);
std::int64_t file_size(int fd, const std::string& path);
/// Fills `out` from `offset` on. Errors: IoError, also if the file ends before.
void read_at(int fd, const std::string& path, std::int64_t offset, void* out, std::int64_t bytes);
/// The whole content. Errors: as open_for_reading; DataError above max_bytes, before allocating.
std::string read_file(const std::string& path, Links, std::int64_t max_bytes);

/// Creates a file that must not exist yet. Errors: CannotCreateError.
UniqueFd create_file(const std::string& path);
/// Errors: IoError.
void write_all(int fd, const std::string& path, const void* data, std::int64_t bytes);
/// Waits until the file's or directory's content is on the disk. Errors: IoError; after one the
/// content is unknown, so the file must be given up, not synced again.
void sync_fd(int fd, const std::string& path);
void sync_path(const std::string& path);
/// create_file, write_all, sync_fd.
void write_new_file(const std::string& path, std::string_view content);
/// Errors: IoError.
void rename_path(const std::string& from, const std::string& to);
/// Swaps or replaces: `to` holds what `from` held, and `from` is gone or holds what `to` held.
/// Atomic where the file system can exchange names. Errors: IoError.
void replace_path(const std::string& from, const std::string& to, const std::string& aside);

/// "path: what: No space left on device (errno 28)", from errno.
std::string system_message(const std::string& path, const char* what);

}  // namespace jamba

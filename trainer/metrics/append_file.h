#pragma once
// A file that only grows by whole records.

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/core/handle.h"

namespace jamba {

/// Each append() is handed to the operating system before it returns, so that a killed process
/// loses no record. Move-only.
/// Errors: CannotCreateError if it cannot be opened, IoError from the rest; messages hold the path
///         and the errno. A record that does not fit (disk full) is taken back whole.
class AppendFile {
 public:
  enum class Open { append, must_be_new };
  AppendFile(std::string path, Open how);

  void append(std::string_view record);
  /// Cuts the file to its first `bytes` bytes.
  void truncate(std::int64_t bytes);
  std::int64_t size() const;
  const std::string& path() const { return path_; }

 private:
  static void close_descriptor(int descriptor);
  [[noreturn]] void fail(const char* what) const;

  std::string path_;
  UniqueHandle<int, close_descriptor, -1> descriptor_;
};

}  // namespace jamba

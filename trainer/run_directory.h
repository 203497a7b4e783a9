#pragma once
#include <string>

#include "trainer/checkpoint/posix_file.h"

namespace jamba {

/// A run's directory, made if it is not there, and held against other jobs while this object lives:
/// two jobs in one directory would mix their records and overwrite each other's checkpoints. The
/// lock ends with the process, however it ends. A file system without locks is used without one.
class RunDirectory {
 public:
  /// Errors: CannotCreateError if it cannot be made, or another job holds it.
  explicit RunDirectory(const std::string& path);

 private:
  UniqueFd lock_;
};

}  // namespace jamba

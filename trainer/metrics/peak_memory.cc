#include "trainer/metrics/peak_memory.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "kernels/core/errors.h"

namespace jamba {

std::int64_t peak_memory_bytes() {
  constexpr const char* kPath = "/proc/self/status";
  std::ifstream status(kPath);
  if (!status) {
    throw IoError(fmt::format("cannot read {}: {} (errno {}); it tells a process's peak memory",
                              kPath, std::strerror(errno), errno));
  }
  for (std::string key; status >> key; std::getline(status, key)) {
    std::int64_t kib = 0;
    if (key == "VmHWM:" && status >> kib) return kib * 1024;
  }
  throw IoError(fmt::format("{} has no line 'VmHWM: <number> kB'", kPath));
}

}  // namespace jamba

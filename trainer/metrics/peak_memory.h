#pragma once
#include <cstdint>

namespace jamba {

/// The most memory that this process has had resident since it started (VmHWM).
/// Units: bytes.   Errors: IoError where /proc/self/status does not tell.
std::int64_t peak_memory_bytes();

}  // namespace jamba

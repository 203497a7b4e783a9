#pragma once
// What this process has used at most, and what this machine can do at most.

#include <cstdint>

#include "kernels/core/dtype.h"
#include "kernels/core/stream.h"

namespace jamba {

/// The most memory that this process has had resident since it started (VmHWM).
/// Units: bytes.   Errors: IoError where /proc/self/status does not tell.
std::int64_t peak_memory_bytes();

/// Rate of the machine's own matrix product on the stream's threads: the best of several products
/// [1536, 1536] x [1536, 1536] through linear_forward during 0.2 s, after one to warm up.
/// MFU must be measured against the peak of the dtype that it trains in.
/// Units: 1e9 FLOPs a second, a multiply-add counted as two.
/// The stream's profile is left as it was.
double measure_peak_gflops(Stream&, DType dtype = DType::f32);

}  // namespace jamba

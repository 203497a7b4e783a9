#pragma once
#include "kernels/core/dtype.h"
#include "kernels/core/stream.h"

namespace jamba {

/// What the stream's device can do at most. CPU: the rate of oneDNN's matrix product, the best of
/// several [1536, 1536] x [1536, 1536] on the stream's threads during 0.2 s. A yardstick that owes
/// nothing to our own kernels; model FLOPs per second are reported as a share of it. MFU must be
/// measured against the peak of the dtype that it trains in. bfloat16 on a CPU where oneDNN does
/// not offer it: the rate of float32, which our products compute in there. CUDA: the rate of
/// cuBLASLt's product of square matrices, the best during 0.2 s. Units: 1e9 FLOPs a second, a
/// multiply-add counted as two.
double measure_peak_gflops(Stream&, DType = DType::f32);

}  // namespace jamba

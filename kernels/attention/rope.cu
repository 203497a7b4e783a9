#include "kernels/attention/rope.h"

#include "kernels/core/cuda/launch.cuh"

namespace jamba::cuda {

namespace {

constexpr int kThreads = 128;

/// A block a token: the angle of a pair, in double as on the CPU, serves all heads. Few models use
/// it, on one layer in eight, so the double arithmetic does not matter. In half turns, since
/// reducing large angles in radians takes memory.
template <class T>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(T* x, const std::int32_t* positions, Index cols, int head_dim, double theta,
                double direction) {
  const Index token = blockIdx.x;
  for (int i = threadIdx.x; i < head_dim / 2; i += kThreads) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    constexpr double kHalfTurnsARadian = 0.31830988618379067154;
    const double angle = positions[token] * (direction * pow(theta, exponent)) * kHalfTurnsARadian;
    const auto c = static_cast<float>(cospi(angle)), s = static_cast<float>(sinpi(angle));
    for (Index head = 0; head < cols; head += head_dim) {
      T* const low = x + token * cols + head + i;
      T* const high = low + head_dim / 2;
      const float a = to_float(*low), b = to_float(*high);
      *low = from_float<T>(fmaf(-b, s, a * c));
      *high = from_float<T>(fmaf(a, s, b * c));
    }
  }
}

}  // namespace

void rope(Stream& stream, Tensor x, Tensor positions, std::int64_t head_dim, double theta,
          Rotation rotation) {
  const double direction = rotation == Rotation::forward ? 1.0 : -1.0;
  visit_float(x.dtype(), [&]<class T>(T) {
    launch<kThreads>(stream, rope_kernel<T>, {x.rows()}, 0, x.ptr<T>(),
                     positions.ptr<std::int32_t>(), x.cols(), static_cast<int>(head_dim), theta,
                     direction);
  });
}

}  // namespace jamba::cuda

#pragma once
// The two halves of a float32 weight on a CUDA device.

#include "kernels/core/cuda/device.cuh"

namespace jamba::cuda {

/// bits = value * 2^16 + rest, rest read as signed.
__device__ __forceinline__ float join_halves(bfloat16 value, std::uint16_t rest) {
  const int low = static_cast<std::int16_t>(rest);
  return __uint_as_float((static_cast<unsigned>(value.bits) << 16) + static_cast<unsigned>(low));
}

struct WeightHalves {
  bfloat16 value;
  std::uint16_t rest;
};
__device__ __forceinline__ WeightHalves split_halves(float weight) {
  const unsigned bits = __float_as_uint(weight);
  WeightHalves out;
  out.value.bits = static_cast<std::uint16_t>((bits + 0x8000u) >> 16);
  out.rest = static_cast<std::uint16_t>(bits);
  return out;
}

}  // namespace jamba::cuda

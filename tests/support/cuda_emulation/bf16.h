#pragma once
// bfloat16 as the twins of CUDA's libraries read and write it, apart from the code that they test.

#include <bit>
#include <cstdint>

namespace cuda_emulation {

inline float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// To the nearest, ties to even.
inline std::uint16_t to_bf16(float value) {
  const auto raw = std::bit_cast<std::uint32_t>(value);
  const bool nan = (raw & 0x7fffffffu) > 0x7f800000u;
  return static_cast<std::uint16_t>(nan ? (raw >> 16) | 0x40u
                                        : (raw + 0x7fffu + ((raw >> 16) & 1u)) >> 16);
}

}  // namespace cuda_emulation

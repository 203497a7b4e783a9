#pragma once
// The generator behind kernels/core/rng.h, for hosts and devices alike.

#include <cstdint>

#ifdef __CUDACC__
#define JAMBA_HOST_DEVICE __host__ __device__
#else
#define JAMBA_HOST_DEVICE
#endif

namespace jamba {

struct PhiloxWords {
  std::uint32_t word[4];
};

/// Philox 4x32-10: 128 random bits for a 64-bit key and a 128-bit counter.
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
JAMBA_HOST_DEVICE inline PhiloxWords philox_words(std::uint64_t key, std::uint64_t counter_high,
                                                  std::uint64_t counter_low) {
  PhiloxWords c = {
      {static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
       static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)}};
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c.word[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c.word[2];
    c = {{static_cast<std::uint32_t>(p1 >> 32) ^ c.word[1] ^ k0, static_cast<std::uint32_t>(p1),
          static_cast<std::uint32_t>(p0 >> 32) ^ c.word[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

}  // namespace jamba

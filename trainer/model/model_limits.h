#pragma once
// Largest sizes that a model config may ask for. Generous against any real model, and small enough
// that no product of them, a parameter count included, overflows 64 bits.

#include <cstdint>

namespace jamba {

inline constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 31;  // ids are int32
inline constexpr std::int64_t kMaxModelDim = std::int64_t{1} << 17;    // hidden, feed-forward
inline constexpr std::int64_t kMaxLayers = 1024;
inline constexpr std::int64_t kMaxHeads = 4096;
inline constexpr std::int64_t kMaxHeadDim = 4096;
inline constexpr std::int64_t kMaxExperts = 4096;
inline constexpr std::int64_t kMaxMambaState = 4096;
inline constexpr std::int64_t kMaxMambaExpand = 64;
inline constexpr std::int64_t kMaxConvTaps = 8;  // causal_conv1d handles no more

}  // namespace jamba

#pragma once
// How the causal convolution is cut into independent pieces of work.

#include <algorithm>
#include <cstdint>

namespace jamba {

inline constexpr std::int64_t kMaxConvTaps = 8;
/// Steps and channels of one piece. Its rows of x and of the pre-activation's gradient stay in the
/// first-level cache; a piece reads kMaxConvTaps - 1 steps beyond its own.
inline constexpr std::int64_t kConvSteps = 64;
inline constexpr std::int64_t kConvChannels = 64;

/// One piece: steps [t0, t1) and channels [d0, d0 + width) of sequence b.
struct ConvPiece {
  std::int64_t b, t0, t1, d0, width;
};

/// Pieces are numbered with channels fastest, then steps, then sequences, so that all pieces of
/// one (b, t0) lie side by side and the partial sums of w's gradient form rows of `inner`.
struct ConvPlan {
  std::int64_t seq, inner, step_blocks, panels, rows, num_pieces;

  ConvPlan(std::int64_t batch, std::int64_t num_steps, std::int64_t num_channels)
      : seq(num_steps),
        inner(num_channels),
        step_blocks((seq + kConvSteps - 1) / kConvSteps),
        panels((inner + kConvChannels - 1) / kConvChannels),
        rows(batch * step_blocks),
        num_pieces(rows * panels) {}

  ConvPiece piece(std::int64_t i) const {
    const std::int64_t row = i / panels, d0 = i % panels * kConvChannels;
    const std::int64_t t0 = row % step_blocks * kConvSteps;
    return {row / step_blocks, t0, std::min(seq, t0 + kConvSteps), d0,
            std::min(kConvChannels, inner - d0)};
  }
};

}  // namespace jamba

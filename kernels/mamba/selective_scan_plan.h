#pragma once
// How the selective scan is cut into independent tasks, and the layout of its private arrays.

#include <algorithm>
#include <cstdint>

#include "kernels/mamba/selective_scan.h"

namespace jamba {

/// Channels that lie side by side in the private layout of states: one AVX-512 vector.
inline constexpr std::int64_t kScanBlock = 16;

/// Channels [d0, d0 + width) of sequence b.
struct ScanTask {
  std::int64_t b, d0, width;
};

struct ScanPlan {
  std::int64_t batch, seq, inner, state;
  ChannelRange range = {};

  static ScanPlan of(const SelectiveScanInputs& in, ChannelRange range) {
    return {in.u.dim(0), in.u.dim(1), in.u.dim(2), in.b.dim(2), range};
  }

  std::int64_t chunks() const { return (seq + kScanChunk - 1) / kScanChunk; }
  std::int64_t blocks() const { return (inner + kScanBlock - 1) / kScanBlock; }
  std::int64_t end_channel() const { return range.count < 0 ? inner : range.begin + range.count; }
  /// Of the range; it ends with a group, so that only the last channels make a smaller one.
  std::int64_t groups() const {
    return (end_channel() - range.begin + kScanGroup - 1) / kScanGroup;
  }
  std::int64_t tasks() const { return batch * groups(); }

  ScanTask task(std::int64_t i) const {
    const std::int64_t d0 = range.begin + i % groups() * kScanGroup;
    return {i / groups(), d0, std::min(kScanGroup, inner - d0)};
  }
  std::int64_t chunk_steps(std::int64_t chunk) const {
    return std::min(kScanChunk, seq - chunk * kScanChunk);
  }

  /// Floats of one value for each (channel, state), channels padded to whole blocks:
  /// [block][state][channel of the block].
  std::int64_t state_floats() const { return blocks() * state * kScanBlock; }
  /// Where channel d's states begin in such an array; they are kScanBlock apart.
  std::int64_t state_offset(std::int64_t d) const {
    return d / kScanBlock * state * kScanBlock + d % kScanBlock;
  }
};

}  // namespace jamba

#pragma once
// One tile of a matrix product, computed by the calling thread.

#include <cstdint>

#include "kernels/linear/gemm_cpu.h"

namespace jamba::cpu {

/// c = a b or c += a b for one expert; how a and b lie in memory follows from the form:
/// form  a       b
/// y     [m, k]  [n, k]
/// dx    [m, k]  [k, n]
/// dw    [k, m]  [k, n]
struct GemmArgs {
  Form form;
  Write write;
  DType dtype;
  DType result_dtype;
  std::int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
};

struct TileRange {
  std::int64_t row, rows, col, cols;
};

/// Tiles are at most this large, and start on multiples of the units. Large tiles repack less;
/// a tile of a's rows need not fit a cache, it streams.
inline constexpr std::int64_t kMaxTileRows = 528;
inline constexpr std::int64_t kTileRowUnit = 12;
inline constexpr std::int64_t kMaxTileCols = 512;
inline constexpr std::int64_t kTileColUnit = 64;
/// Units of a dot product that one pass over the panels adds up: numbers in float32, pairs of
/// numbers in bfloat16 on a CPU with instructions for them. It fixes the order of summation.
/// Each pass reads and writes the result once more.
inline constexpr std::int64_t kKBlock = 512;

/// A thread's workspace: packed copies of the tile's rows of a and of kTileColUnit columns of b,
/// for one K-block; and the tile's running sums for results that are not float32.
inline constexpr std::int64_t kPadding = 16;  // floats between strips, so that they do not alias
inline constexpr std::int64_t kPanelAFloats =
    kMaxTileRows * kKBlock + (kMaxTileRows / 6 + 1) * kPadding;
inline constexpr std::int64_t kPanelBFloats = kTileColUnit * kKBlock + kTileColUnit / 2 * kPadding;
inline constexpr std::int64_t kSumsFloats = kMaxTileRows * kMaxTileCols;
inline constexpr std::int64_t kTileWorkspaceBytes =
    (kPanelAFloats + kPanelBFloats + kSumsFloats) * 4;
static_assert(kTileWorkspaceBytes % 64 == 0);

/// workspace: kTileWorkspaceBytes of the calling thread, aligned as Buffers are.
void gemm_tile(const GemmArgs&, const TileRange&, float* workspace);

}  // namespace jamba::cpu

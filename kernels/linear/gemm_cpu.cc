#include "kernels/linear/gemm_cpu.h"

#include <omp.h>

#include <algorithm>

#include "kernels/linear/gemm_tile_cpu.h"

namespace jamba::cpu {

namespace {

/// Expert e's product with its dims.
GemmArgs expert_product(const GroupedProduct& p, std::int64_t e) {
  const std::int64_t begin = p.offsets[e], rows = p.offsets[e + 1] - begin;
  const std::int64_t input_bytes = dtype_bytes(p.dtype), result_bytes = dtype_bytes(p.result_dtype);
  const auto input = [&](const void* base, std::int64_t at) {
    return static_cast<const char*>(base) + at * input_bytes;
  };
  const auto result = [&](std::int64_t at) { return static_cast<char*>(p.c) + at * result_bytes; };
  const bool from_weight = p.form != Form::dw;
  GemmArgs g{.form = p.form, .write = p.write, .dtype = p.dtype, .result_dtype = p.result_dtype};
  const std::int64_t weight_at = e * p.out * p.in;
  switch (p.form) {
    case Form::y:
      g.m = rows, g.n = p.out, g.k = p.in;
      break;
    case Form::dx:
      g.m = rows, g.n = p.in, g.k = p.out;
      break;
    case Form::dw:
      g.m = p.out, g.n = p.in, g.k = rows;
      break;
  }
  g.a = input(p.a, begin * (p.form == Form::y ? p.in : p.out));
  g.b = input(p.b, from_weight ? weight_at : begin * p.in);
  g.c = result(from_weight ? begin * g.n : weight_at);
  return g;
}

struct TileLimits {
  std::int64_t rows = kMaxTileRows, cols = kMaxTileCols;
};

std::int64_t ceil_div(std::int64_t x, std::int64_t y) { return (x + y - 1) / y; }

/// Cuts n into equal parts of at most `limit`, rounded up to a multiple of `unit`.
struct Cut {
  std::int64_t size, count;
  Cut(std::int64_t n, std::int64_t limit, std::int64_t unit)
      : size(n == 0 ? unit : ceil_div(ceil_div(n, ceil_div(n, limit)), unit) * unit),
        count(ceil_div(n, size)) {}
};

/// How one m x n result is cut into tiles.
struct Tiling {
  Cut rows, cols;
  Tiling(const GemmArgs& g, const TileLimits& limits)
      : rows(g.m, limits.rows, kTileRowUnit), cols(g.n, limits.cols, kTileColUnit) {}
  std::int64_t count() const { return rows.count * cols.count; }
};

std::int64_t count_tiles(const GroupedProduct& p, const TileLimits& limits) {
  std::int64_t count = 0;
  for (std::size_t e = 0; e + 1 < p.offsets.size(); ++e) {
    count += Tiling(expert_product(p, static_cast<std::int64_t>(e)), limits).count();
  }
  return count;
}

/// The largest tiles that occupy all threads. The split never shows in the result's bits.
TileLimits choose_limits(const GroupedProduct& p, int num_threads) {
  TileLimits limits;
  if (num_threads == 1) return limits;
  while (count_tiles(p, limits) < 2 * num_threads) {
    if (limits.rows >= limits.cols && limits.rows > kTileRowUnit) {
      limits.rows = ceil_div(limits.rows / 2, kTileRowUnit) * kTileRowUnit;
    } else if (limits.cols > kTileColUnit) {
      limits.cols /= 2;
    } else {
      break;
    }
  }
  return limits;
}

/// Per-thread panels, kept by the stream.
class GemmWorkspace : public BackendState {
 public:
  explicit GemmWorkspace(Stream& stream) : buffer_(stream.num_threads() * kTileWorkspaceBytes) {}
  float* of_thread(int thread) const {
    return static_cast<float*>(buffer_.data()) + thread * (kTileWorkspaceBytes / 4);
  }

 private:
  Buffer buffer_;
};

void run_tile(const GroupedProduct& p, std::int64_t tile, const TileLimits& limits,
              float* workspace) {
  for (std::int64_t e = 0;; ++e) {
    const GemmArgs g = expert_product(p, e);
    const Tiling tiling(g, limits);
    if (tile >= tiling.count()) {
      tile -= tiling.count();
      continue;
    }
    const std::int64_t row = tile / tiling.cols.count * tiling.rows.size;
    const std::int64_t col = tile % tiling.cols.count * tiling.cols.size;
    const TileRange range{row, std::min(tiling.rows.size, g.m - row), col,
                          std::min(tiling.cols.size, g.n - col)};
    gemm_tile(g, range, workspace);
    return;
  }
}

}  // namespace

void grouped_product(Stream& stream, const GroupedProduct& p) {
  const int num_threads = stream.num_threads();
  const auto& workspace = stream.backend_state<GemmWorkspace>();
  const TileLimits limits = choose_limits(p, num_threads);
  const std::int64_t count = count_tiles(p, limits);
#pragma omp parallel for schedule(dynamic) num_threads(num_threads) if (count > 1)
  for (std::int64_t tile = 0; tile < count; ++tile) {
    run_tile(p, tile, limits, workspace.of_thread(omp_get_thread_num()));
  }
}

}  // namespace jamba::cpu

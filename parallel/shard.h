#pragma once
// Which part of a logical tensor a rank holds, and where its elements lie in the whole.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace jamba {

/// A box of a logical tensor: indices [offset[d], offset[d] + extents[d]) of every dim d. The rank
/// that holds it stores it row-major without gaps; "local" means an index into that memory,
/// "global" one into the row-major logical tensor. A scalar has no dims and one element.
struct TensorShard {
  std::vector<std::int64_t> offset;
  std::vector<std::int64_t> extents;
  int copies = 1;  // how many of the ranks that share the tensor hold this same box
  int copy = 0;    // which of them this is

  std::int64_t numel() const;
  friend bool operator==(const TensorShard&, const TensorShard&) = default;
};

/// The share `index` of `parts` of a tensor of this shape. Dim `dim` consists of
/// shape[dim] / unit units of `unit` indices that stay together (a head, say), and is cut into
///   units [units * index / parts, units * (index + 1) / parts), divisions rounding down.
/// With fewer units than parts, the share is the one unit units * index / parts, and the shares
/// with equal unit are copies. dim < 0: no cut; every share is a copy of the whole.
/// Errors: LogicError if dim or index is out of range, or shape[dim] is no positive multiple of
/// unit.
TensorShard cut(std::span<const std::int64_t> shape, int dim, std::int64_t unit, int parts,
                int index);

/// Calls run(local_begin, global_begin, count) for every stretch of the shard that is contiguous in
/// the logical tensor, in local order. Stretches are as long as possible.
/// Errors: LogicError if the shard is not within the shape.
void for_each_run(std::span<const std::int64_t> shape, const TensorShard& shard,
                  const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& run);

/// The local elements [begin, end) of `whole` as boxes of the logical tensor: in local order, each
/// contiguous in local memory, as few as possible (a matrix: the rest of a row, whole rows, the
/// start of a row). They keep the copies and copy of `whole`.
/// Errors: LogicError if not 0 <= begin <= end <= whole.numel().
std::vector<TensorShard> boxes_of_range(const TensorShard& whole, std::int64_t begin,
                                        std::int64_t end);

}  // namespace jamba

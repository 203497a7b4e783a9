#pragma once
// Axis-aligned boxes of N-d index space: which part of a logical tensor a slice is.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace jamba {

/// Indices offset[d] .. offset[d] + extents[d] - 1 in every dim d.
struct Box {
  std::vector<std::int64_t> offset;
  std::vector<std::int64_t> extents;

  std::int64_t numel() const;
  /// "[0:4, 8:16]"
  std::string describe() const;
  friend bool operator==(const Box&, const Box&) = default;
};

/// Whether the box is well formed and lies in a tensor of this shape. No overflow for any values.
bool lies_in(const Box& box, const std::vector<std::int64_t>& shape);

/// The common part, if it is not empty. Both of equal rank.
std::optional<Box> intersect(const Box& a, const Box& b);

/// Copies the elements of `part`, which lies in both boxes, between row-major arrays of the boxes.
void copy_part(const Box& part, std::int64_t element_bytes, const Box& from_box, const void* from,
               const Box& to_box, void* to);

/// Nothing if the boxes hold every index of the shape exactly once; else what is wrong, in words.
/// All boxes must lie in the shape.
std::optional<std::string> partition_fault(std::vector<Box> boxes,
                                           const std::vector<std::int64_t>& shape);

}  // namespace jamba

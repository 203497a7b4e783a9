#include "trainer/checkpoint/boxes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace jamba {

namespace {

std::int64_t product(const std::vector<std::int64_t>& dims) {
  std::int64_t n = 1;
  for (const std::int64_t d : dims) n *= d;
  return n;
}

/// Element index of a position in the row-major array of a box.
std::int64_t index_in(const Box& box, const std::vector<std::int64_t>& position) {
  std::int64_t index = 0;
  for (std::size_t d = 0; d < position.size(); ++d) {
    index = index * box.extents[d] + position[d] - box.offset[d];
  }
  return index;
}

}  // namespace

std::int64_t Box::numel() const { return product(extents); }

std::string Box::describe() const {
  std::string text = "[";
  for (std::size_t d = 0; d < offset.size(); ++d) {
    text += fmt::format("{}{}:{}", d == 0 ? "" : ", ", offset[d], offset[d] + extents[d]);
  }
  return text + "]";
}

bool lies_in(const Box& box, const std::vector<std::int64_t>& shape) {
  if (box.offset.size() != shape.size() || box.extents.size() != shape.size()) return false;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (box.offset[d] < 0 || box.extents[d] < 0 || box.offset[d] > shape[d]) return false;
    if (box.extents[d] > shape[d] - box.offset[d]) return false;
  }
  return true;
}

std::optional<Box> intersect(const Box& a, const Box& b) {
  Box common = a;
  for (std::size_t d = 0; d < a.offset.size(); ++d) {
    const std::int64_t begin = std::max(a.offset[d], b.offset[d]);
    const std::int64_t end = std::min(a.offset[d] + a.extents[d], b.offset[d] + b.extents[d]);
    if (begin >= end) return std::nullopt;
    common.offset[d] = begin;
    common.extents[d] = end - begin;
  }
  return common;
}

void copy_part(const Box& part, std::int64_t element_bytes, const Box& from_box, const void* from,
               const Box& to_box, void* to) {
  // Dims from `inner` on are one run of bytes: whole in both boxes, apart from the first of them.
  std::size_t inner = part.extents.size() - 1;
  std::int64_t run = part.extents[inner];
  while (inner > 0 && part.extents[inner] == from_box.extents[inner] &&
         part.extents[inner] == to_box.extents[inner]) {
    run *= part.extents[--inner];
  }
  const auto bytes = static_cast<std::size_t>(run * element_bytes);
  std::vector<std::int64_t> position = part.offset;
  while (true) {
    std::memcpy(static_cast<char*>(to) + index_in(to_box, position) * element_bytes,
                static_cast<const char*>(from) + index_in(from_box, position) * element_bytes,
                bytes);
    std::size_t d = inner;
    while (true) {  // the next position of the outer dims
      if (d == 0) return;
      --d;
      if (++position[d] < part.offset[d] + part.extents[d]) break;
      position[d] = part.offset[d];
    }
  }
}

std::optional<std::string> partition_fault(std::vector<Box> boxes,
                                           const std::vector<std::int64_t>& shape) {
  std::sort(boxes.begin(), boxes.end(),
            [](const Box& a, const Box& b) { return a.offset < b.offset; });
  std::int64_t covered = 0;
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    covered += boxes[i].numel();
    // Sorted by dim 0: boxes that start beyond this one's end cannot meet it.
    for (std::size_t k = i + 1; k < boxes.size(); ++k) {
      if (boxes[k].offset[0] >= boxes[i].offset[0] + boxes[i].extents[0]) break;
      if (intersect(boxes[i], boxes[k])) {
        return fmt::format("slices {} and {} overlap", boxes[i].describe(), boxes[k].describe());
      }
    }
  }
  if (covered == product(shape)) return std::nullopt;
  return fmt::format("slices hold {} of {} elements", covered, product(shape));
}

}  // namespace jamba

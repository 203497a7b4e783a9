#include "parallel/shard.h"

#include <algorithm>
#include <cstddef>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

/// Elements between neighbours of each dim of a row-major array.
std::vector<std::int64_t> strides_of(std::span<const std::int64_t> extents) {
  std::vector<std::int64_t> strides(extents.size(), 1);
  for (std::size_t d = extents.size(); d-- > 1;) strides[d - 1] = strides[d] * extents[d];
  return strides;
}

void check_within(std::span<const std::int64_t> shape, const TensorShard& shard) {
  JAMBA_CHECK(shard.offset.size() == shape.size() && shard.extents.size() == shape.size(),
              "a shard of {} offsets and {} extents, a shape of {} dims", shard.offset.size(),
              shard.extents.size(), shape.size());
  for (std::size_t d = 0; d < shape.size(); ++d) {
    JAMBA_CHECK(shard.offset[d] >= 0 && shard.extents[d] >= 0 &&
                    shard.offset[d] <= shape[d] - shard.extents[d],
                "dim {} has {} indices, the shard {} from {}", d, shape[d], shard.extents[d],
                shard.offset[d]);
  }
}

/// The largest box that starts at local element `begin` and holds at most `limit` elements.
TensorShard largest_box(const TensorShard& whole, std::span<const std::int64_t> strides,
                        std::int64_t begin, std::int64_t limit) {
  TensorShard box = whole;
  std::int64_t rest = begin;
  for (std::size_t d = 0; d < strides.size(); ++d) {
    const std::int64_t index = rest / strides[d];
    rest %= strides[d];
    box.offset[d] += index;
    box.extents[d] = 1;
    if (rest == 0 && limit >= strides[d]) {
      // Whole slices of this dim from here on; the dims after it stay as long as in `whole`.
      box.extents[d] = std::min(whole.extents[d] - index, limit / strides[d]);
      break;
    }
  }
  return box;
}

}  // namespace

std::int64_t TensorShard::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t extent : extents) n *= extent;
  return n;
}

TensorShard cut(std::span<const std::int64_t> shape, int dim, std::int64_t unit, int parts,
                int index) {
  JAMBA_CHECK(0 <= index && index < parts, "share {} of {}", index, parts);
  JAMBA_CHECK(dim < static_cast<int>(shape.size()), "dim {} of {}", dim, shape.size());
  TensorShard shard{std::vector<std::int64_t>(shape.size(), 0), {shape.begin(), shape.end()}};
  if (dim < 0) {
    shard.copies = parts;
    shard.copy = index;
    return shard;
  }
  const std::int64_t size = shape[static_cast<std::size_t>(dim)];
  JAMBA_CHECK(unit > 0 && size > 0 && size % unit == 0, "dim {} has {} indices, units of {}", dim,
              size, unit);
  const std::int64_t units = size / unit;
  const std::int64_t first = units * index / parts;
  const std::int64_t count = std::max<std::int64_t>(1, units * (index + 1) / parts - first);
  if (units < parts) {
    // The first share of a unit u is the smallest i with units * i >= u * parts.
    const auto first_share = [&](std::int64_t u) { return (u * parts + units - 1) / units; };
    shard.copies = static_cast<int>(first_share(first + 1) - first_share(first));
    shard.copy = static_cast<int>(index - first_share(first));
  }
  shard.offset[static_cast<std::size_t>(dim)] = first * unit;
  shard.extents[static_cast<std::size_t>(dim)] = count * unit;
  return shard;
}

void for_each_run(std::span<const std::int64_t> shape, const TensorShard& shard,
                  const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& run) {
  check_within(shape, shard);
  const std::vector<std::int64_t> strides = strides_of(shape);
  // Dims from `inner` on form one run: all of them but the first are whole.
  std::size_t inner = shape.size();
  std::int64_t count = 1;
  while (inner > 0) {
    --inner;
    count *= shard.extents[inner];
    if (shard.extents[inner] != shape[inner]) break;
  }
  const std::int64_t numel = shard.numel();
  for (std::int64_t local = 0; local < numel; local += count) {
    std::int64_t global = 0;
    std::int64_t rest = local;
    for (std::size_t d = shape.size(); d-- > 0;) {
      global += (shard.offset[d] + rest % shard.extents[d]) * strides[d];
      rest /= shard.extents[d];
    }
    run(local, global, count);
  }
}

std::vector<TensorShard> boxes_of_range(const TensorShard& whole, std::int64_t begin,
                                        std::int64_t end) {
  JAMBA_CHECK(0 <= begin && begin <= end && end <= whole.numel(), "elements [{}, {}) of {}", begin,
              end, whole.numel());
  const std::vector<std::int64_t> strides = strides_of(whole.extents);
  std::vector<TensorShard> boxes;
  while (begin < end) {
    boxes.push_back(largest_box(whole, strides, begin, end - begin));
    begin += boxes.back().numel();
  }
  return boxes;
}

}  // namespace jamba

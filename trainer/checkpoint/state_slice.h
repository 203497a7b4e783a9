#pragma once
// What callers save and load: parts of logical tensors.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/tensor.h"
#include "trainer/checkpoint/boxes.h"

namespace jamba {

/// A part of a logical tensor, in memory of any device: `data` holds the elements of
/// [offset, offset + data.dims()) of a tensor of global_shape.
/// Names are "<group>/<parameter>", such as "weight/lm_head.weight" or "adam_m/lm_head.weight".
struct StateSlice {
  std::string name;
  std::vector<std::int64_t> global_shape;
  std::vector<std::int64_t> offset;
  Tensor data;
};

/// Errors: LogicError unless the name is one, and the slice lies within its tensor.
Box slice_box(const StateSlice& slice);

/// Where slices lie; a rank has them all on one device.
inline Device device_of(std::span<const StateSlice> slices) {
  return slices.empty() ? Device{} : slices.front().data.device();
}

}  // namespace jamba

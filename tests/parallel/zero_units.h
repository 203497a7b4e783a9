#pragma once
#include <vector>

#include "parallel/zero.h"

namespace jamba::test {

inline constexpr ZeroStage kStages[] = {ZeroStage::none, ZeroStage::optimizer, ZeroStage::gradients,
                                        ZeroStage::parameters};

/// Layers of one deep pool, of different sizes, and one unit in a pool of one slot.
inline std::vector<UnitSpec> some_units(Communicator& group, bool deep = true) {
  std::vector<UnitSpec> specs(5);
  const std::int64_t blocks[] = {3, 5, 1, 4, 2};
  for (std::size_t i = 0; i < specs.size(); ++i) {
    specs[i] = {.elements = blocks[i] * kUnitBlock,
                .dtype = DType::f32,
                .group = &group,
                .pool = i == 4 ? 2 : 0,
                .deep = deep && i != 4};
  }
  specs[1].dtype = specs[4].dtype = DType::bf16;
  return specs;
}

}  // namespace jamba::test

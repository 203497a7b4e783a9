#pragma once
// For zero*.cc alone.

#include "parallel/zero.h"

namespace jamba {

/// A unit with its memory and what is on its way.
struct ZeroStore::Unit {
  UnitSpec spec;
  ZeroStage stage = ZeroStage::none;  // none where the group is one rank: nothing to share
  std::int64_t size = 0;
  Range share, owned;

  Buffer values;  // all, or in stage parameters this rank's share; rests behind where joinable
  Buffer rests;   // elsewhere
  PendingCollective arriving;  // values
  Slot* value_slot = nullptr;
  bool in_use = false;  // between fetch and release

  Buffer gradients;  // where it has no slot
  Slot* gradient_slot = nullptr;
  PendingCollective reducing;
  Tensor piece;              // where the sum over ranks arrives
  std::vector<Buffer> sums;  // of microbatches, of this rank's share; the last ends up with all
  std::int64_t num_summed = 0;

  Tensor sum(std::size_t level) const { return sums[level].tensor(DType::f32, {share.count}); }
  /// Whether sums of shares have to be gathered, since every rank updates everything.
  bool gathers_sums() const { return stage == ZeroStage::none && spec.group->size() > 1; }
  /// Elements of `values`.
  std::int64_t held() const { return shards_values() ? share.count : size; }
  /// Whether values and rests fill the memory of the float32 weights that they are.
  bool joinable() const { return spec.dtype == DType::bf16 && held() == owned.count; }
  bool shards_values() const { return stage == ZeroStage::parameters; }
  bool pools_gradient() const { return stage >= ZeroStage::gradients && !spec.keeps_gradient; }
};

}  // namespace jamba

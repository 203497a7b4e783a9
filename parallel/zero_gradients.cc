#include <algorithm>

#include "kernels/core/errors.h"
#include "kernels/pointwise/pointwise.h"
#include "parallel/zero_unit.h"

namespace jamba {

bool ZeroStore::reduces_each_micro(const Unit& u) const {
  return u.pools_gradient() ||
         (options_.accumulation == Accumulation::tree && options_.num_micro > 1);
}

bool ZeroStore::starts_afresh(int unit, std::int64_t micro) const {
  return micro == 0 || reduces_each_micro(at(unit));
}

ZeroStore::Slot& ZeroStore::gradient_slot(const Unit& u) {
  Pool& pool = gradient_pools_[static_cast<std::size_t>(u.spec.pool)];
  const auto free = [&] {
    return std::find_if(pool.begin(), pool.end(),
                        [](const Slot& slot) { return slot.user == nullptr; });
  };
  while (free() == pool.end()) {
    JAMBA_CHECK(!travelling_.empty(), "more gradients of pool {} than it has room for",
                u.spec.pool);
    finish_reduction(*travelling_.front());
  }
  return *free();
}

Tensor ZeroStore::full_gradient(const Unit& u) const {
  const Buffer& memory = u.gradient_slot != nullptr ? u.gradient_slot->memory : u.gradients;
  return memory.tensor(DType::f32, {u.size});
}

Tensor ZeroStore::full_gradient(int unit) const { return full_gradient(at(unit)); }

bool ZeroStore::reduces_now(int unit, std::int64_t micro) const {
  return micro + 1 == options_.num_micro || reduces_each_micro(at(unit));
}

Tensor ZeroStore::begin_gradient(int unit) {
  Unit& u = at(unit);
  while (std::find(travelling_.begin(), travelling_.end(), &u) != travelling_.end()) {
    finish_reduction(*travelling_.front());
  }
  if (u.pools_gradient()) {
    u.gradient_slot = &gradient_slot(u);
    u.gradient_slot->user = &u;
  }
  return full_gradient(u);
}

void ZeroStore::end_gradient(int unit, std::int64_t micro) {
  Unit& u = at(unit);
  if (!reduces_now(unit, micro)) return;
  const Tensor all = full_gradient(u);
  if (u.stage == ZeroStage::none && !reduces_each_micro(u)) {
    u.piece = all;
    u.reducing = u.spec.group->start_all_reduce(stream_, all);
  } else {
    u.piece = opens_a_sum(u) ? u.sum(0) : all.slice(u.share.begin, u.share.count);
    u.reducing = u.spec.group->start_reduce_scatter(stream_, u.piece, all);
  }
  travelling_.push_back(&u);
}

/// Whether the microbatch on its way is the first of the sum on level 0.
bool ZeroStore::opens_a_sum(const Unit& u) const {
  if (!reduces_each_micro(u)) return false;
  return options_.accumulation == Accumulation::tree ? u.num_summed % 2 == 0 : u.num_summed == 0;
}

void ZeroStore::finish_reduction(Unit& u) {
  JAMBA_CHECK(travelling_.front() == &u, "gradients are waited for in the order they left");
  travelling_.pop_front();
  u.reducing.wait();
  if (reduces_each_micro(u)) accumulate(u);
  if (u.gradient_slot != nullptr) u.gradient_slot->user = nullptr;
  u.gradient_slot = nullptr;
}

/// Tree: like a binary counter. Level l holds the sum of 2^l microbatches where bit l of their
/// number so far is set, and two of a level make one of the next, the older on the left. The last
/// two of all stay where they meet.
void ZeroStore::accumulate(Unit& u) {
  if (opens_a_sum(u)) {
    if (u.piece.raw() != u.sum(0).raw()) cast(stream_, u.sum(0), u.piece);
  } else if (options_.accumulation == Accumulation::sequential) {
    add(stream_, u.sum(0), u.piece);
  } else {
    Tensor piece = u.piece;
    std::size_t level = 0;
    for (; (u.num_summed >> level & 1) != 0; ++level) {
      add(stream_, u.sum(level), piece);
      piece = u.sum(level);
    }
    if (level < u.sums.size()) std::swap(u.sums[level - 1], u.sums[level]);
  }
  ++u.num_summed;
}

void ZeroStore::finish_gradients() {
  while (!travelling_.empty()) finish_reduction(*travelling_.front());
  for (const auto& unit : units_) {
    unit->num_summed = 0;
    if (!reduces_each_micro(*unit) || !unit->gathers_sums()) continue;
    unit->spec.group->all_gather(stream_, full_gradient(*unit), unit->sum(unit->sums.size() - 1));
  }
}

Tensor ZeroStore::owned_gradient(int unit) const {
  const Unit& u = at(unit);
  if (!reduces_each_micro(u) || u.gathers_sums()) {
    return full_gradient(u).slice(u.owned.begin, u.owned.count);
  }
  return u.sum(u.sums.size() - 1);
}

}  // namespace jamba

#include "kernels/core/errors.h"
#include "parallel/zero_unit.h"

namespace jamba {

/// The slot to bring a unit's values to: of those that no unit uses, the one filled longest ago, as
/// what came last is needed first, be it on the way or where a pass turns round. Null if there is
/// none.
ZeroStore::Slot* ZeroStore::idle_slot(const Unit& u) {
  Slot* oldest = nullptr;
  for (Slot& slot : value_pools_[static_cast<std::size_t>(u.spec.pool)]) {
    const bool idle = slot.user == nullptr || !slot.user->in_use;
    if (idle && (oldest == nullptr || slot.filled < oldest->filled)) oldest = &slot;
  }
  return oldest;
}

void ZeroStore::prefetch(int unit) {
  Unit& u = at(unit);
  if (!u.shards_values() || u.value_slot != nullptr) return;
  Slot* slot = idle_slot(u);
  if (slot == nullptr) return;
  if (slot->user != nullptr) {
    slot->user->arriving.wait();
    slot->user->value_slot = nullptr;
  }
  slot->user = &u;
  slot->filled = ++num_fills_;
  u.value_slot = slot;
  u.arriving = u.spec.group->start_all_gather(stream_, value(unit),
                                              u.values.tensor(u.spec.dtype, {u.share.count}));
}

void ZeroStore::fetch(int unit) {
  Unit& u = at(unit);
  prefetch(unit);
  JAMBA_CHECK(!u.shards_values() || u.value_slot != nullptr,
              "more units of pool {} in use than it has room for", u.spec.pool);
  u.arriving.wait();
  u.in_use = true;
}

void ZeroStore::release(int unit) { at(unit).in_use = false; }

Tensor ZeroStore::value(int unit) const {
  const Unit& u = at(unit);
  if (!u.shards_values()) return u.values.tensor(u.spec.dtype, {u.size});
  JAMBA_CHECK(u.value_slot != nullptr, "values of unit {} are not here", unit);
  return u.value_slot->memory.tensor(u.spec.dtype, {u.size});
}

Tensor ZeroStore::owned_value(int unit) {
  Unit& u = at(unit);
  u.arriving.wait();
  if (u.shards_values()) return u.values.tensor(u.spec.dtype, {u.share.count});
  return value(unit).slice(u.owned.begin, u.owned.count);
}

Tensor ZeroStore::owned_rest(int unit) const {
  const Unit& u = at(unit);
  if (u.joinable()) {
    return u.values.tensor(DType::u16, {2 * u.owned.count}).slice(u.owned.count, u.owned.count);
  }
  return u.rests.bytes() == 0 ? Tensor() : u.rests.tensor(DType::u16, {u.owned.count});
}

Tensor ZeroStore::joined_memory(int unit) const {
  const Unit& u = at(unit);
  return u.joinable() ? u.values.tensor(DType::f32, {u.owned.count}) : Tensor();
}

void ZeroStore::publish(int unit) {
  Unit& u = at(unit);
  u.arriving.wait();
  if (u.shards_values()) {  // what this rank has brought of them is out of date
    if (u.value_slot != nullptr) u.value_slot->user = nullptr;
    u.value_slot = nullptr;
  } else if (u.stage != ZeroStage::none) {
    const Tensor all = value(unit);
    u.arriving =
        u.spec.group->start_all_gather(stream_, all, all.slice(u.share.begin, u.share.count));
  }
}

}  // namespace jamba

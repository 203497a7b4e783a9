#include "trainer/model/masters.h"

#include <algorithm>

#include "kernels/optim/weight_halves.h"
#include "kernels/pointwise/pointwise.h"

namespace jamba {

Masters::Masters(Parameters& parameters, Access access) : parameters_(parameters), access_(access) {
  const ZeroStore& store = parameters.store();
  copies_.resize(static_cast<std::size_t>(store.num_units()));
  std::int64_t largest = 0;
  for (int unit = 0; unit < store.num_units(); ++unit) {
    if (in_place(unit)) largest = std::max(largest, store.joined_memory(unit).bytes());
  }
  largest_ = Buffer(largest, parameters.stream().device());
  for (int unit = 0; unit < store.num_units(); ++unit) {
    if (store.owned_rest(unit).present()) join(unit);
  }
}

Masters::~Masters() {
  const ZeroStore& store = parameters_.store();
  for (int unit = 0; unit < store.num_units(); ++unit) {
    if (store.owned_rest(unit).absent()) continue;
    if (in_place(unit) || access_ == Access::write) split(unit);
  }
}

bool Masters::in_place(int unit) const { return parameters_.store().joined_memory(unit).present(); }

void Masters::join(int unit) {
  ZeroStore& store = parameters_.store();
  const Tensor value = store.owned_value(unit);
  Buffer& copy = copies_[static_cast<std::size_t>(unit)];
  if (!in_place(unit)) copy = Buffer(value.numel() * dtype_bytes(DType::f32), value.device());
  const Buffer& to = in_place(unit) ? largest_ : copy;
  const Tensor weights = to.tensor(DType::f32, {value.numel()});
  join_weight(parameters_.stream(), weights, value, store.owned_rest(unit));
  if (in_place(unit)) cast(parameters_.stream(), store.joined_memory(unit), weights);
}

void Masters::split(int unit) {
  ZeroStore& store = parameters_.store();
  const Tensor value = store.owned_value(unit);
  Tensor weights = joined(unit);
  if (in_place(unit)) {
    weights = largest_.tensor(DType::f32, {value.numel()});
    cast(parameters_.stream(), weights, joined(unit));
  }
  split_weight(parameters_.stream(), value, store.owned_rest(unit), weights);
}

Tensor Masters::joined(int unit) const {
  if (in_place(unit)) return parameters_.store().joined_memory(unit);
  return copies_[static_cast<std::size_t>(unit)].tensor(DType::f32,
                                                        {parameters_.store().owned(unit).count});
}

Tensor Masters::of(const Parameters::Entry& e, const Parameters::Stretch& stretch) const {
  ZeroStore& store = parameters_.store();
  const bool halves = store.owned_rest(e.unit).present();
  const Tensor all = halves ? joined(e.unit) : store.owned_value(e.unit);
  return all.slice(stretch.offset, stretch.count);
}

}  // namespace jamba

#include "trainer/model/masters.h"

#include <algorithm>

#include "kernels/optim/weight_halves.h"
#include "kernels/pointwise/pointwise.h"

namespace jamba {

Masters::Masters(Stream& stream, const Parameters& parameters)
    : stream_(stream), parameters_(parameters) {
  std::int64_t largest = 0;
  for (const Parameters::Entry& entry : parameters.entries()) {
    if (entry.rest.present()) largest = std::max(largest, entry.spec.numel());
  }
  copy_ = Buffer(largest * dtype_bytes(DType::f32));
  for (const Parameters::Entry& entry : parameters.entries()) {
    if (entry.rest.absent()) continue;
    const std::int64_t n = entry.spec.numel();
    const Tensor copy = copy_.tensor(DType::f32, {n});
    join_weight(stream, copy, entry.value.view({n}), entry.rest);
    cast(stream, of(entry).view({n}), copy);
  }
}

Masters::~Masters() {
  for (const Parameters::Entry& entry : parameters_.entries()) {
    if (entry.rest.absent()) continue;
    const std::int64_t n = entry.spec.numel();
    const Tensor copy = copy_.tensor(DType::f32, {n});
    cast(stream_, copy, of(entry).view({n}));
    split_weight(stream_, entry.value.view({n}), entry.rest, copy);
  }
}

Tensor Masters::flat() const {
  return parameters_.weights_.tensor(DType::f32, {parameters_.size_});
}

Tensor Masters::of(const Parameters::Entry& entry) const {
  return Tensor(static_cast<float*>(parameters_.weights_.data()) + entry.begin, DType::f32,
                std::span<const std::int64_t>(entry.spec.shape));
}

}  // namespace jamba

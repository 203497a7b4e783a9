#include "trainer/checkpoint/snapshot.h"

#include <algorithm>

namespace jamba {

SnapshotReader::SnapshotReader(std::span<const StateSlice> slices)
    : copies_(Stream::on(device_of(slices), 1)), slices_(slices) {
  std::int64_t largest = 0;
  for (const StateSlice& slice : slices) {
    if (slice.data.device().kind == DeviceKind::cuda)
      largest = std::max(largest, slice.data.bytes());
  }
  if (largest > 0) staging_ = {Buffer::pinned(largest), Buffer::pinned(largest)};
  synchronize(copies_.device());
  if (!slices.empty()) fetch(0);
}

void SnapshotReader::fetch(std::size_t i) {
  StateSlice& slice = on_host_[i % 2];
  slice = slices_[i];
  if (slice.data.device().kind == DeviceKind::cpu) return;
  slice.data = Tensor(staging_[i % 2].data(), slice.data.dtype(), slice.data.dims());
  copy(copies_, slice.data, slices_[i].data);
}

const StateSlice* SnapshotReader::next() {
  if (next_ == slices_.size()) return nullptr;
  copies_.synchronize();
  const std::size_t i = next_++;
  if (next_ < slices_.size()) fetch(next_);
  return &on_host_[i % 2];
}

}  // namespace jamba

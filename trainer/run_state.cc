#include "trainer/run_state.h"

#include <filesystem>

namespace jamba {

namespace {

/// The boxes of a stretch of an entry; values hold the stretch.
void add_boxes(std::vector<StateSlice>& out, const std::string& group,
               const Parameters::Entry& entry, const Parameters::Stretch& stretch, Tensor values) {
  std::int64_t done = 0;
  for (const TensorShard& box :
       boxes_of_range(entry.shard, stretch.begin, stretch.begin + stretch.count)) {
    const Tensor part = values.slice(done, box.numel());
    done += box.numel();
    out.push_back({group + "/" + entry.spec.name, entry.spec.shape, box.offset,
                   Tensor(part.raw(), DType::f32, std::span<const std::int64_t>(box.extents),
                          part.device())});
  }
}

template <class ValuesOf>
void add_slices(std::vector<StateSlice>& out, const std::string& group,
                const Parameters& parameters, Elements elements, ValuesOf&& values_of) {
  for (const Parameters::Entry& entry : parameters.entries()) {
    if (elements == Elements::share && !entry.counted) continue;
    const Parameters::Stretch stretch =
        elements == Elements::share ? parameters.share(entry) : parameters.owned(entry);
    if (stretch.count > 0) add_boxes(out, group, entry, stretch, values_of(entry, stretch));
  }
}

}  // namespace

std::vector<StateSlice> weight_slices(const Masters& masters, Elements elements) {
  std::vector<StateSlice> out;
  add_slices(out, "weight", masters.parameters(), elements,
             [&](const auto& entry, const auto& stretch) { return masters.of(entry, stretch); });
  return out;
}

std::vector<StateSlice> training_slices(const Masters& masters, const AdamWOptimizer& optimizer,
                                        Elements elements) {
  std::vector<StateSlice> out = weight_slices(masters, elements);
  add_slices(out, "adam_m", masters.parameters(), elements,
             [&](const auto& entry, const auto& stretch) { return optimizer.m(entry, stretch); });
  add_slices(out, "adam_v", masters.parameters(), elements,
             [&](const auto& entry, const auto& stretch) { return optimizer.v(entry, stretch); });
  return out;
}

std::string checkpoint_root(const std::string& run_dir) { return run_dir + "/checkpoints"; }

FoundCheckpoint find_checkpoint(const std::string& path) {
  const std::string root = checkpoint_root(path);
  return resolve_checkpoint(std::filesystem::is_directory(root) ? root : path);
}

}  // namespace jamba

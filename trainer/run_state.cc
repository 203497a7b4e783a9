#include "trainer/run_state.h"

#include <filesystem>

namespace jamba {

namespace {

/// Views each parameter's part of a flat buffer.
void add_slices(std::vector<StateSlice>& out, const std::string& group,
                const Parameters& parameters, const Tensor& flat) {
  for (const Parameters::Entry& entry : parameters.entries()) {
    const Tensor part = flat.slice(entry.begin, entry.spec.numel());
    out.push_back({group + "/" + entry.spec.name, entry.spec.shape,
                   std::vector<std::int64_t>(entry.spec.shape.size(), 0),
                   Tensor(part.raw(), DType::f32, std::span<const std::int64_t>(entry.spec.shape),
                          part.device())});
  }
}

}  // namespace

std::vector<StateSlice> weight_slices(const Masters& masters) {
  std::vector<StateSlice> out;
  add_slices(out, "weight", masters.parameters(), masters.flat());
  return out;
}

std::vector<StateSlice> training_slices(const Masters& masters, const AdamWOptimizer& optimizer) {
  std::vector<StateSlice> out = weight_slices(masters);
  add_slices(out, "adam_m", masters.parameters(), optimizer.flat_m());
  add_slices(out, "adam_v", masters.parameters(), optimizer.flat_v());
  return out;
}

std::string checkpoint_root(const std::string& run_dir) { return run_dir + "/checkpoints"; }

FoundCheckpoint find_checkpoint(const std::string& path) {
  const std::string root = checkpoint_root(path);
  return resolve_checkpoint(std::filesystem::is_directory(root) ? root : path);
}

}  // namespace jamba

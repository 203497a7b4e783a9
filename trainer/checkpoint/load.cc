#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "kernels/core/host_view.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/model_json.h"
#include "trainer/checkpoint/shard.h"

namespace jamba {

namespace {

using SlicesByTensor = std::map<std::string, std::vector<std::size_t>>;

std::string group_of(const std::string& name) { return name.substr(0, name.find('/')); }

/// Collects differences; a message with all of them, up to a readable number.
class Differences {
 public:
  void add(std::string line) { lines_.push_back(std::move(line)); }
  void throw_if_any(const std::string& path) const {
    if (lines_.empty()) return;
    constexpr std::size_t kShown = 20;
    std::string text = fmt::format("{}: does not hold what is asked of it:", path);
    for (std::size_t i = 0; i < std::min(kShown, lines_.size()); ++i) text += "\n  " + lines_[i];
    if (lines_.size() > kShown) text += fmt::format("\n  and {} more", lines_.size() - kShown);
    throw CheckpointError(text);
  }

 private:
  std::vector<std::string> lines_;
};

void compare(const std::string& path, const Manifest& manifest, const SlicesByTensor& stored,
             std::span<const StateSlice> wanted, Wanted mode) {
  Differences differences;
  std::set<std::string> names, groups;
  for (const StateSlice& slice : wanted) {
    groups.insert(group_of(slice.name));
    const bool first = names.insert(slice.name).second;
    const auto it = stored.find(slice.name);
    if (it == stored.end()) {
      if (first) {
        differences.add(fmt::format("missing: {}{}", slice.name,
                                    manifest.info.weights_only ? " (it holds weights only)" : ""));
      }
      continue;
    }
    const SliceRecord& record = manifest.slices[it->second[0]];
    if (record.global_shape != slice.global_shape || record.dtype != slice.data.dtype()) {
      differences.add(fmt::format("{}: stored {}[{}], wanted {}[{}]", slice.name,
                                  dtype_name(record.dtype), fmt::join(record.global_shape, ", "),
                                  dtype_name(slice.data.dtype()),
                                  fmt::join(slice.global_shape, ", ")));
    }
  }
  if (mode == Wanted::whole_groups) {
    for (const auto& [name, parts] : stored) {
      if (groups.contains(group_of(name)) && !names.contains(name)) {
        differences.add("not wanted: " + name);
      }
    }
  }
  differences.throw_if_any(path);
}

/// A stored slice, and the wanted ones that it has elements of.
struct Transfer {
  const SliceRecord* record;
  std::vector<const StateSlice*> targets;
};

/// By file, so that each is opened once.
std::map<std::string, std::vector<Transfer>> plan(const Manifest& manifest,
                                                  const SlicesByTensor& stored,
                                                  std::span<const StateSlice> wanted) {
  std::map<const SliceRecord*, std::vector<const StateSlice*>> targets;
  for (const StateSlice& slice : wanted) {
    const Box box = slice_box(slice);
    for (const std::size_t i : stored.at(slice.name)) {
      const SliceRecord& record = manifest.slices[i];
      if (intersect(record.box, box)) targets[&record].push_back(&slice);
    }
  }
  std::map<std::string, std::vector<Transfer>> by_file;
  for (auto& [record, slices] : targets) {
    by_file[record->file].push_back({record, std::move(slices)});
  }
  return by_file;
}

/// Reads one stored slice, straight into place where it is exactly what is wanted.
void transfer(const Hdf5Reader& file, std::int64_t step, const Transfer& job) {
  const SliceRecord& record = *job.record;
  const std::string dataset = dataset_name(record);
  file.expect(dataset, hdf5_type(record.dtype), record.box.extents);
  const std::int64_t element = dtype_bytes(record.dtype);
  const std::int64_t bytes = record.box.numel() * element;
  const bool direct = job.targets.size() == 1 && slice_box(*job.targets[0]) == record.box;
  const Buffer scratch(direct ? 0 : bytes);
  void* const data = direct ? job.targets[0]->data.raw() : scratch.data();
  file.read(dataset, {static_cast<std::byte*>(data), static_cast<std::size_t>(bytes)});
  if (slice_hash(step, record, data) != record.hash) {
    throw CheckpointError(
        fmt::format("{}: tensor '{}' {}: damaged: its content does not match the "
                    "manifest's hash",
                    file.path(), record.name, record.box.describe()));
  }
  if (direct) return;
  for (const StateSlice* target : job.targets) {
    const Box box = slice_box(*target);
    copy_part(*intersect(record.box, box), element, record.box, data, box, target->data.raw());
  }
}

/// Names of tensors, for a message about the file that holds them.
std::string name_tensors(const std::vector<Transfer>& jobs) {
  constexpr std::size_t kShown = 3;
  std::set<std::string> names;
  for (const Transfer& job : jobs) names.insert(job.record->name);
  std::vector<std::string> shown(names.begin(), names.end());
  const std::size_t more = shown.size() > kShown ? shown.size() - kShown : 0;
  shown.resize(shown.size() - more);
  return fmt::format("{}{}", fmt::join(shown, ", "),
                     more > 0 ? fmt::format(" and {} more", more) : "");
}

}  // namespace

void load_checkpoint(const std::string& path, std::span<const StateSlice> wanted_anywhere,
                     Wanted mode) {
  Stream stream = Stream::on(device_of(wanted_anywhere), 1);
  std::deque<HostView> views;
  std::vector<StateSlice> wanted(wanted_anywhere.begin(), wanted_anywhere.end());
  for (StateSlice& slice : wanted) {
    slice.data = views.emplace_back(stream, slice.data, HostAccess::write).tensor();
  }
  const Manifest manifest = read_manifest(path);
  const SlicesByTensor stored = manifest.slices_by_tensor();
  compare(path, manifest, stored, wanted, mode);
  const auto files = plan(manifest, stored, wanted);
  try {
    for (const auto& [name, jobs] : files) {
      try {
        verify_file(path, manifest.file(name));
      } catch (const CheckpointError& e) {
        throw CheckpointError(fmt::format("{} (it holds {})", e.what(), name_tensors(jobs)));
      }
    }
    for (const auto& [name, jobs] : files) {
      const Hdf5Reader file(path + "/" + name);
      for (const Transfer& job : jobs) transfer(file, manifest.info.step, job);
    }
    for (const HostView& view : views) view.store();
    stream.synchronize();
  } catch (const DataError& e) {
    throw CheckpointError(e.what());
  } catch (const NoInputError& e) {
    throw CheckpointError(e.what());
  }
}

void expect_same_model(const std::string& path, const Manifest& manifest,
                       const ModelConfig& model) {
  const std::vector<std::string> diff = architecture_diff(manifest.info.model, model);
  if (diff.empty()) return;
  throw CheckpointError(fmt::format("{}: is of another model (checkpoint against this run):\n  {}",
                                    path, fmt::join(diff, "\n  ")));
}

}  // namespace jamba

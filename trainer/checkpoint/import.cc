#include "trainer/checkpoint/import.h"

#include <map>
#include <set>
#include <vector>

#include "kernels/core/memory.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/hf_names.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/shard.h"

namespace jamba {

namespace {

constexpr std::int64_t kMaxTokenizerBytes = 256 << 20;

/// Errors: DataError listing every tensor that is missing, unknown, or of another shape.
void compare(const std::string& from_dir, const std::vector<HfTensor>& expected,
             const SafetensorsDirectory& files) {
  std::vector<std::string> lines;
  std::set<std::string> names;
  for (const HfTensor& tensor : expected) {
    names.insert(tensor.name);
    const auto it = files.tensors().find(tensor.name);
    if (it == files.tensors().end()) {
      lines.push_back("missing: " + tensor.name);
    } else if (it->second.entry->shape != tensor.shape) {
      lines.push_back(fmt::format("{}: shape [{}], expected [{}]", tensor.name,
                                  fmt::join(it->second.entry->shape, ", "),
                                  fmt::join(tensor.shape, ", ")));
    }
  }
  for (const auto& [name, location] : files.tensors()) {
    if (!names.contains(name)) lines.push_back("unknown: " + name);
  }
  if (lines.empty()) return;
  constexpr std::size_t kShown = 20;
  const std::size_t more = lines.size() > kShown ? lines.size() - kShown : 0;
  lines.resize(lines.size() - more);
  throw DataError(fmt::format("{}: the tensors are not those of its config.json:\n  {}{}", from_dir,
                              fmt::join(lines, "\n  "),
                              more > 0 ? fmt::format("\n  and {} more", more) : ""));
}

/// The parts of every parameter, in the order of the model.
std::vector<std::vector<HfTensor>> by_parameter(const std::vector<HfTensor>& tensors) {
  std::map<std::string, std::size_t> place;
  std::vector<std::vector<HfTensor>> out;
  for (const HfTensor& tensor : tensors) {
    const auto [it, added] = place.emplace(tensor.param, out.size());
    if (added) out.emplace_back();
    out[it->second].push_back(tensor);
  }
  return out;
}

void write_parameter(ShardWriter& writer, const SafetensorsDirectory& files,
                     const std::vector<HfTensor>& parts) {
  std::int64_t count = 0;
  for (const HfTensor& part : parts) count += part.count;
  const Buffer buffer(count * dtype_bytes(DType::f32));
  const Tensor flat = buffer.tensor(DType::f32, {count});
  for (const HfTensor& part : parts) files.read(part.name, flat.slice(part.begin, part.count));
  const std::vector<std::int64_t>& shape = parts[0].param_shape;
  writer.add({"weight/" + parts[0].param, shape, std::vector<std::int64_t>(shape.size(), 0),
              Tensor(buffer.data(), DType::f32, shape)});
}

}  // namespace

void import_hugging_face(const std::string& from_dir, const std::string& to_dir) {
  CheckpointInfo info;
  info.weights_only = true;
  info.model = read_hf_config(from_dir + "/config.json");
  const SafetensorsDirectory files(from_dir);
  const std::vector<HfTensor> tensors = hf_tensors(info.model);
  compare(from_dir, tensors, files);
  try {
    info.tokenizer_model =
        read_file(from_dir + "/" + kTokenizerName, Links::follow, kMaxTokenizerBytes);
  } catch (const NoInputError&) {
    // A model without a tokenizer is still a model.
  }
  if (find_latest(to_dir)) throw CannotCreateError(to_dir + ": holds checkpoints already");
  const std::string staging = begin_checkpoint(to_dir, info.step);
  try {
    ShardWriter writer(staging, info.step, 0);
    for (const auto& parts : by_parameter(tensors)) write_parameter(writer, files, parts);
    const Shard shard = writer.finish();
    commit_checkpoint(to_dir, info, 1, {&shard, 1});
  } catch (...) {
    discard_checkpoint(to_dir, info.step);
    throw;
  }
}

}  // namespace jamba

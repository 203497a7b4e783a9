#include "trainer/checkpoint/manifest.h"

#include <algorithm>
#include <string_view>

#include "kernels/core/errors.h"
#include "kernels/core/tensor.h"
#include "trainer/checkpoint/checked_math.h"

namespace jamba {

namespace {

bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '-';
}

/// Errors: CheckpointError if this slice cannot be part of any tensor.
void check_slice(const SliceRecord& slice, const std::string& where) {
  const auto fail = [&](const std::string& message) {
    throw CheckpointError(fmt::format("{}: tensor '{}': {}", where, slice.name, message));
  };
  if (!is_tensor_name(slice.name)) fail("not a name of a tensor");
  const std::size_t rank = slice.global_shape.size();
  if (rank < 1 || rank > Tensor::kMaxRank) fail(fmt::format("has {} dims", rank));
  if (!checked_product(slice.global_shape, dtype_bytes(slice.dtype))) {
    fail(fmt::format("shape [{}] is too large", fmt::join(slice.global_shape, ", ")));
  }
  if (!lies_in(slice.box, slice.global_shape)) {
    fail(fmt::format("slice of offset [{}] and extents [{}] is not within shape [{}]",
                     fmt::join(slice.box.offset, ", "), fmt::join(slice.box.extents, ", "),
                     fmt::join(slice.global_shape, ", ")));
  }
}

}  // namespace

const FileRecord& Manifest::file(const std::string& name) const {
  const auto it = std::find_if(files.begin(), files.end(),
                               [&](const FileRecord& record) { return record.name == name; });
  JAMBA_CHECK(it != files.end(), "no file '{}' in the manifest", name);
  return *it;
}

std::map<std::string, std::vector<std::size_t>> Manifest::slices_by_tensor() const {
  std::map<std::string, std::vector<std::size_t>> by_tensor;
  for (std::size_t i = 0; i < slices.size(); ++i) by_tensor[slices[i].name].push_back(i);
  return by_tensor;
}

std::string shard_file_name(int rank) { return fmt::format("rank-{:05d}.h5", rank); }

bool is_tensor_name(const std::string& name) {
  if (name.empty() || name.size() > 400) return false;
  std::string_view rest = name;
  while (true) {
    const std::string_view word = rest.substr(0, rest.find('/'));
    if (word.empty() || word[0] == '.') return false;
    if (!std::all_of(word.begin(), word.end(), is_word_char)) return false;
    if (word.size() == rest.size()) return true;
    rest.remove_prefix(word.size() + 1);
  }
}

std::string dataset_name(const SliceRecord& slice) {
  std::string name = slice.name;
  std::replace(name.begin(), name.end(), '/', ':');
  return fmt::format("{}@{}", name, fmt::join(slice.box.offset, ","));
}

void check_slices(const std::vector<SliceRecord>& slices, const std::string& where) {
  std::map<std::string, std::vector<const SliceRecord*>> tensors;
  for (const SliceRecord& slice : slices) {
    check_slice(slice, where);
    tensors[slice.name].push_back(&slice);
  }
  for (const auto& [name, parts] : tensors) {
    std::vector<Box> boxes;
    for (const SliceRecord* part : parts) {
      if (part->dtype != parts[0]->dtype || part->global_shape != parts[0]->global_shape) {
        throw CheckpointError(
            fmt::format("{}: tensor '{}': slices disagree about dtype or shape", where, name));
      }
      boxes.push_back(part->box);
    }
    if (const auto fault = partition_fault(std::move(boxes), parts[0]->global_shape)) {
      throw CheckpointError(fmt::format("{}: tensor '{}': {}", where, name, *fault));
    }
  }
}

}  // namespace jamba

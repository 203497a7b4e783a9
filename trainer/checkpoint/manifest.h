#pragma once
// What a checkpoint is, in one JSON file: written last, so that it proves the rest.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/dtype.h"
#include "trainer/checkpoint/boxes.h"
#include "trainer/model/model_config.h"

namespace jamba {

/// The state of a run beside its tensors.
struct CheckpointInfo {
  std::int64_t step = 0;
  std::int64_t tokens_seen = 0;
  std::uint64_t sampler_seed = 0;
  std::int64_t sampler_position = 0;  // in the sampler's own unit
  bool weights_only = false;          // no optimizer state: nothing to resume, only to start from
  ModelConfig model;
  std::string run_config;  // the run's config as JSON text, or empty
  std::vector<std::pair<std::string, std::int64_t>> mesh;  // axis and degree, such as ("dp", 4)
  std::string tokenizer_hash;
  /// Content of the file tokenizer.model, or empty. Saved beside the manifest, not in it:
  /// read_manifest leaves it empty, read_tokenizer_model returns it.
  std::string tokenizer_model;
};

/// A file of the checkpoint's directory.
struct FileRecord {
  std::string name;
  std::int64_t bytes = 0;
  std::string hash;
};

/// Where a part of a logical tensor is stored.
struct SliceRecord {
  std::string name;
  std::vector<std::int64_t> global_shape;
  Box box;
  DType dtype = DType::f32;
  std::string file;
  std::string hash;  // over step, name, dtype, shape, box and data
};

/// What one rank wrote.
struct Shard {
  std::vector<FileRecord> files;  // one, or none if the rank held nothing
  std::vector<SliceRecord> slices;
};

struct Manifest {
  CheckpointInfo info;
  std::int64_t world_size = 1;
  std::vector<FileRecord> files;
  std::vector<SliceRecord> slices;

  /// Errors: LogicError if no file has this name.
  const FileRecord& file(const std::string& name) const;
  /// Places in `slices` of every tensor's slices.
  std::map<std::string, std::vector<std::size_t>> slices_by_tensor() const;
};

inline constexpr const char* kManifestName = "MANIFEST.json";
inline constexpr const char* kTokenizerName = "tokenizer.model";

/// "rank-00003.h5"
std::string shard_file_name(int rank);
/// "weight/model.layers.0.mamba.D": words of [A-Za-z0-9_.-] joined by '/', at most 400 bytes.
bool is_tensor_name(const std::string& name);
/// Name of a slice's dataset in its file: "weight:model.layers.0.mamba.D@128".
std::string dataset_name(const SliceRecord& slice);

/// Text of the file. Its last line holds the hash of all that stands before it.
std::string manifest_to_text(const Manifest&);
/// Checks the hash first, then everything the loader relies on: known file names only, boxes within
/// their tensors, every element of every tensor in exactly one slice, equal dtypes and shapes.
/// Errors: CheckpointError starting with `where`.
Manifest manifest_from_text(const std::string& text, const std::string& where);

/// One rank's part, on its way to the rank that writes the manifest.
std::string shard_to_text(const Shard&);
Shard shard_from_text(const std::string& text);

/// Errors: CheckpointError starting with `where` and naming the tensor, unless every element of
/// every tensor is in exactly one slice of one dtype and global shape.
void check_slices(const std::vector<SliceRecord>& slices, const std::string& where);

}  // namespace jamba

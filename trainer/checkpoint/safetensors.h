#pragma once
// The safetensors format: u64 length, JSON header, raw little-endian data.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/tensor.h"
#include "trainer/checkpoint/posix_file.h"

namespace jamba {

/// One tensor of a file. `dtype` is the format's own word, such as "F32" or "BF16".
/// Units: begin and bytes count bytes of the data section.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;
  std::int64_t bytes = 0;

  std::int64_t numel() const;
};

/// The entries of a header in the order of their data.
/// Checks, before anything is allocated from a declared size: known dtypes, products without
/// overflow, offsets that fill data_bytes without overlap or hole, no duplicate names, bounded
/// nesting. Errors: DataError starting with `where` and naming the tensor.
std::vector<SafetensorsEntry> parse_safetensors_header(std::string_view json,
                                                       std::int64_t data_bytes,
                                                       const std::string& where);

/// An open file whose header has been checked. Move-only.
class SafetensorsFile {
 public:
  /// Errors: NoInputError, IoError; DataError for what breaks the format.
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const SafetensorsEntry* find(const std::string& name) const;

  /// Reads a tensor of this file into `out`.
  /// Shapes: equal element counts; dims may differ.
  /// Dtypes: float32 from F32, BF16 or F16 (exact); otherwise bf16, i64, i32 and u8 from their own.
  /// Errors: DataError for another dtype or count, naming the tensor; IoError.
  void read(const SafetensorsEntry& entry, const Tensor& out) const;

 private:
  std::string path_;
  UniqueFd fd_;
  std::int64_t data_begin_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::size_t> index_;
};

/// The tensors of a Hugging Face directory: model.safetensors, or the shards that
/// model.safetensors.index.json lists.
class SafetensorsDirectory {
 public:
  /// Errors: NoInputError if neither file exists or a shard is missing; DataError if the index
  /// names a file outside the directory, or disagrees with the shards' headers.
  explicit SafetensorsDirectory(const std::string& directory);

  /// Every name with its entry, sorted by name.
  struct Location {
    const SafetensorsFile* file;
    const SafetensorsEntry* entry;
  };
  const std::map<std::string, Location>& tensors() const { return tensors_; }
  /// Errors: DataError if there is no such tensor; else as SafetensorsFile::read.
  void read(const std::string& name, const Tensor& out) const;

 private:
  void add_file(const std::string& path);
  void open_index(const std::string& directory);

  std::string directory_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Location> tensors_;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Writes a file that Hugging Face's readers accept: {"format": "pt"} metadata, header padded with
/// spaces to 8 bytes, wider dtypes first so that all data is aligned, otherwise in the given order.
/// The file appears under its name only when it is complete and on the disk.
/// Dtypes: f32, bf16, i64.  Errors: CannotCreateError, IoError; LogicError for duplicate names.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors);

}  // namespace jamba

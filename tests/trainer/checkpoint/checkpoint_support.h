#pragma once
// What the checkpoint tests share: directories that vanish, models, and state with known values.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/memory.h"
#include "trainer/checkpoint/checkpoint.h"

namespace jamba::test {

/// A new directory under the system's temporary one, removed with its content.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// What f throws, as text; "nothing" if it returns. Other errors than Expected pass through.
template <class Expected, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Expected& e) {
    return e.what();
  }
  return "nothing was thrown";
}

std::string read_bytes(const std::string& path);
void write_bytes(const std::string& path, std::string_view bytes);
std::vector<std::string> names_in(const std::string& directory);

/// A small model of every layer kind.
ModelConfig small_model();

/// A logical tensor of the tests.
struct LogicalTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  DType dtype = DType::f32;
};

/// Tensors of different ranks and dtypes, with odd sizes.
std::vector<LogicalTensor> logical_tensors();

/// Owned slices: this part of every logical tensor.
class State {
 public:
  /// Cuts dim `dim` (the last one, if a tensor has fewer) into `parts`, and takes number `index`.
  /// The first parts are one longer where the dim does not divide.
  State(const std::vector<LogicalTensor>& tensors, int dim, std::int64_t parts, std::int64_t index);

  const std::vector<StateSlice>& slices() const { return slices_; }
  /// Every byte a function of (seed, tensor, place in the logical tensor).
  void fill(std::uint64_t seed);
  void clear();
  /// Whether every element is what fill(seed) writes there.
  bool holds(std::uint64_t seed) const;

 private:
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::vector<StateSlice> slices_;
};

CheckpointInfo info_of_step(std::int64_t step);

/// Saves logical_tensors() filled with `seed` from `ranks` threads, each with a part along dim 0.
void save_state(const std::string& root, std::int64_t step, std::uint64_t seed, int ranks);
/// Whether the checkpoint loads, whole, with the values of `seed`.
void expect_loads(const std::string& path, std::uint64_t seed);

}  // namespace jamba::test

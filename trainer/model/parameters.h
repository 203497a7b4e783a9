#pragma once
// The parameters that this rank holds, and their way: values come before a part of the model runs,
// gradients leave when it is done.

#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/core/exact_sum.h"
#include "parallel/mesh.h"
#include "parallel/shard.h"
#include "parallel/zero.h"
#include "trainer/model/parameter_specs.h"
#include "trainer/model/stage_layout.h"
#include "trainer/model/weight.h"

namespace jamba {

enum class Pass { forward, backward };

struct ParameterOptions {
  DType compute_dtype = DType::f32;
  bool sequence_parallel = false;
  ZeroOptions zero;
};

/// Cuts the logical parameters along the mesh, and lays this rank's pieces out in units: of each
/// part of the model what stays float32, what has the compute dtype, and its experts. Each piece
/// starts on a multiple of kUnitBlock elements of its unit.
/// The optimizer updates float32 masters. Of a float32 unit they are the values; a bfloat16 unit
/// lies in halves (kernels/optim/weight_halves.h), and masters.h puts them together.
/// Layers hold pointers to Weight: it must outlive them, and stays where it is.
class Parameters {
 public:
  struct Entry {
    ParameterSpec spec;
    TensorShard shard;  // what this rank holds of it
    int unit = 0;
    std::int64_t begin = 0;  // element of the unit
    bool counted = true;     // false: another rank of its tensor or pipeline group holds the same
    Weight weight;

    std::int64_t numel() const { return shard.numel(); }
  };
  /// A stretch of an entry: elements [begin, begin + count) of it, which are elements offset and up
  /// of what this rank owns of the entry's unit (ZeroStore::owned).
  struct Stretch {
    std::int64_t begin = 0, count = 0, offset = 0;
  };

  /// The mesh must outlive it.
  Parameters(Stream&, const ModelConfig&, const Mesh&, const std::vector<Chunk>&,
             const ParameterOptions&);
  /// All parameters on one rank.
  Parameters(Stream&, const ModelConfig&, const Mesh&, const ParameterOptions&);
  Parameters(const Parameters&) = delete;
  Parameters& operator=(const Parameters&) = delete;

  const std::vector<Entry>& entries() const { return entries_; }
  /// Errors: LogicError if this rank holds no parameter of this name.
  const Entry& entry(const std::string& name) const;
  /// An absent weight if there is no such parameter: switches remove parameters.
  const Weight* weight(const std::string& name) const;

  // A part of the model calls before() and after() around its forward, and around its backward.
  // All ranks of its data-parallel group do so in the same order.

  void before(Pass, std::int64_t part);
  void after(Pass, std::int64_t part);
  /// The next backward passes are of this microbatch of the step.
  void set_microbatch(std::int64_t micro) { micro_ = micro; }
  /// After the last backward pass of a step: returns when all sums over ranks are there.
  void finish_gradients();

  /// What this rank owns, or has an equal share of, of an entry; count is 0 where that is nothing.
  Stretch owned(const Entry&) const;
  Stretch share(const Entry&) const;
  /// Of a finished step, the gradient of a stretch.
  Tensor gradient(const Entry&, const Stretch&) const;
  /// Adds the squares of the finished gradients, each logical element on one rank of the mesh only.
  void add_gradient_squares(Arena& scratch, ExactSum&) const;
  /// Tells the other ranks what became of the owned values.
  void publish();

  ZeroStore& store() { return store_; }
  const ZeroStore& store() const { return store_; }
  const Mesh& mesh() const { return mesh_; }
  Stream& stream() const { return stream_; }
  DType compute_dtype() const { return options_.compute_dtype; }
  bool sequence_parallel() const { return options_.sequence_parallel; }
  bool training() const { return options_.zero.training; }

 private:
  /// Entries that lie together, and when their gradient is complete.
  struct Unit {
    std::vector<std::size_t> entries;
    std::int64_t first_part = 0, last_part = 0;  // of backward: highest and lowest
  };
  /// Gradients that are to be summed over neighbours before they leave: elements of a unit.
  struct NeighbourSum {
    int unit;
    std::int64_t begin, count;
    Communicator* group;
  };
  struct Plan;

  Parameters(Stream&, const Mesh&, const ParameterOptions&, Plan);
  static Plan make_plan(const ModelConfig&, const Mesh&, const std::vector<Chunk>&,
                        const ParameterOptions&);
  void bind_values(int unit);
  void bind_gradients(int unit);
  Stretch stretch(const Entry&, ZeroStore::Range) const;

  Stream& stream_;
  const Mesh& mesh_;
  ParameterOptions options_;
  std::vector<Entry> entries_;
  std::vector<Unit> units_;
  std::vector<std::vector<int>> units_of_part_;
  std::vector<NeighbourSum> neighbour_sums_;
  int tied_unit_ = -1;  // the head's copy of the embedding, or the embedding that the head shares
  std::unordered_map<std::string, std::size_t> index_;
  ZeroStore store_;
  std::int64_t micro_ = 0;
};

}  // namespace jamba

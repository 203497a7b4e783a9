#pragma once
// Every parameter of a model: names, shapes, and the flat memory that holds them.

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/core/memory.h"
#include "trainer/model/context.h"
#include "trainer/model/model_config.h"

namespace jamba {

/// How a parameter starts; initialize.h has the distributions.
enum class InitRule {
  normal,
  embedding,
  zeros,
  ones,
  a_log,
  conv,
  dt_weight,
  dt_bias,
  mamba_linear,
  mamba_out
};

struct ParameterSpec {
  std::string name;
  std::vector<std::int64_t> shape;
  InitRule init;
  /// Matrices decay; norms, biases, A_log, D and the convolution's bias do not.
  bool weight_decay;
  /// Only the operands of large matrix products are stored in the compute dtype.
  bool keep_float32;
  /// Backward of a step's first microbatch overwrites the gradient; the rest must start from zero.
  bool gradient_overwritten;

  std::int64_t numel() const;
};

/// All parameters of the model, in the order forward first uses them.
std::vector<ParameterSpec> parameter_specs(const ModelConfig&);

enum class Gradients { none, allocate };

/// Owns values and gradients in flat buffers, so that reductions, norms and checkpoints see one
/// array. Each parameter starts on a 64-byte boundary; the gaps between gradients stay zero.
/// The optimizer updates float32 master weights. In a float32 model layers read these; in a
/// bfloat16 model large matrices lie in halves (kernels/optim/weight_halves.h): layers read
/// `value`, and masters.h puts the halves together.
class Parameters {
 public:
  struct Entry {
    ParameterSpec spec;
    std::int64_t begin;  // element in the flat buffers
    Tensor value;
    Tensor rest;  // uint16 [numel], of a weight in halves; else absent
    Tensor grad;
  };

  Parameters(const ModelConfig&, DType compute_dtype, Gradients);

  const std::vector<Entry>& entries() const { return entries_; }
  /// Errors: LogicError if no parameter has this name.
  const Entry& entry(const std::string& name) const;
  /// Absent tensors if no parameter has this name: switches remove parameters.
  Weight weight(const std::string& name) const;

  DType compute_dtype() const { return compute_dtype_; }
  Tensor flat_gradients() const { return gradients_.tensor(DType::f32, {size_}); }
  /// Number of elements of the flat buffers, gaps included.
  std::int64_t flat_size() const { return size_; }

 private:
  friend class Masters;

  DType compute_dtype_;
  std::int64_t size_ = 0;
  Buffer weights_, gradients_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, std::size_t> index_;
};

}  // namespace jamba

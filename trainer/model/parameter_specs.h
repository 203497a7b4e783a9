#pragma once
// Every parameter of a model: name, shape, and how parallel ranks cut it.

#include <cstdint>
#include <string>
#include <vector>

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

/// A dim that ranks share out in units of `unit` indices that stay together: a head, or one. Where
/// there are fewer units than ranks, neighbours hold the same ones. dim -1: every rank holds all.
struct CutDim {
  int dim = -1;
  std::int64_t unit = 1;
};

/// Parts of a model, in the order that forward runs them: the embedding, the layers, the head.
inline constexpr std::int64_t kEmbeddingPart = 0;
inline std::int64_t layer_part(std::int64_t layer) { return 1 + layer; }
inline std::int64_t head_part(const ModelConfig& c) { return 1 + c.num_hidden_layers; }
inline std::int64_t num_parts(const ModelConfig& c) { return 2 + c.num_hidden_layers; }

struct ParameterSpec {
  std::string name;
  /// Of the logical tensor. Projections that are stored as one have a dim for it: in_proj
  /// [2, inner, hidden] (x, z), gate_up [2, ffn, hidden], experts' gate_up [experts, 2, ffn,
  /// hidden].
  std::vector<std::int64_t> shape;
  InitRule init = InitRule::normal;
  /// Matrices decay; norms, biases, A_log, D and the convolution's bias do not.
  bool weight_decay = false;
  /// Only operands of large matrix products, and biases of results in the compute dtype, are stored
  /// in it.
  bool keep_float32 = false;
  /// Backward of a step's first microbatch overwrites the gradient; the rest must start from zero.
  bool gradient_overwritten = false;
  CutDim tp;            // along tensor parallelism
  bool expert = false;  // dim 0 is cut along expert parallelism
  /// Under sequence parallelism a rank's gradient is that of its own tokens: norms of the residual
  /// stream.
  bool sees_own_tokens = false;
  std::int64_t part = 0;

  std::int64_t numel() const;
};

/// All parameters of the model, in the order forward first uses them.
std::vector<ParameterSpec> parameter_specs(const ModelConfig&);

}  // namespace jamba

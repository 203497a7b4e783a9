#pragma once
// A directory that holds a model, its inputs, and what a reference computed from them.

#include <string>

#include <nlohmann/json.hpp>

#include "trainer/checkpoint/safetensors.h"
#include "trainer/model/parameters.h"

namespace jamba {

enum class FixtureKind {
  model,       // losses, logits, hidden states and every gradient of one batch
  trajectory,  // losses of some optimizer steps, and the final weights
  mixer        // one Mamba mixer: output and gradients
};

/// config.json, model.safetensors (Hub names), inputs.safetensors, expected.safetensors, meta.json.
/// Errors: NoInputError, DataError from the files; UnsupportedError for inputs with padding.
class Fixture {
 public:
  explicit Fixture(const std::string& directory);

  FixtureKind kind() const { return kind_; }
  const ModelConfig& config() const { return config_; }
  const nlohmann::json& meta() const { return meta_; }
  const SafetensorsFile& inputs() const { return inputs_; }
  const SafetensorsFile& expected() const { return expected_; }

  /// Fills what this rank owns of the parameters from model.safetensors; all ranks together.
  void load_weights(Parameters&) const;
  /// Reads an int64 tensor of the inputs as int32 into `out` of equal size, from element `begin`.
  void read_tokens(const std::string& name, std::int64_t begin, const Tensor& out) const;
  /// Shape of an input.
  std::vector<std::int64_t> input_shape(const std::string& name) const;

 private:
  void refuse_padding() const;
  /// Fills float32 [numel] with a logical parameter.
  void read_parameter(const std::string& param, const Tensor& out) const;

  ModelConfig config_;
  nlohmann::json meta_;
  SafetensorsFile model_, inputs_, expected_;
  FixtureKind kind_;
};

/// The name that our parameter's Hugging Face tensor has in this fixture's files: a mixer fixture
/// leaves out "model.layers.0.".
std::string fixture_name(FixtureKind, const std::string& hf_name);

}  // namespace jamba

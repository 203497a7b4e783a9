#pragma once
// Which Hugging Face tensor is which part of which parameter. The only place that knows.

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/model/model_config.h"

namespace jamba {

/// A tensor of the Hub's file layout: elements [begin, begin + count) of one of our parameters,
/// whose gate and up projections, and whose experts, are stored as one.
struct HfTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string param;
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::vector<std::int64_t> param_shape;
};

/// Every tensor of the model's Hub files, in the order of the layers. The ranges of one parameter
/// follow each other without gaps, though other tensors may stand between them.
/// Source: Hugging Face transformers, models/jamba; experts under their per-expert names, which
/// every version reads.
std::vector<HfTensor> hf_tensors(const ModelConfig&);

}  // namespace jamba

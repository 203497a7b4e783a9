#pragma once
// ModelConfig as JSON text: the form that manifests keep.

#include <string>
#include <string_view>
#include <vector>

#include "trainer/model/model_config.h"

namespace jamba {

/// One JSON object with every field of the config.
std::string model_to_json(const ModelConfig&);

/// The inverse. Errors: DataError starting with `where` for a missing, unknown or mistyped key, or
/// for sizes that make no model.
ModelConfig model_from_json(std::string_view text, const std::string& where);

/// Every difference that makes the two compute different functions, or hold different parameters:
/// "hidden_size: 64 against 128". Losses and initialisation may differ: they are choices of a run.
std::vector<std::string> architecture_diff(const ModelConfig& a, const ModelConfig& b);

}  // namespace jamba

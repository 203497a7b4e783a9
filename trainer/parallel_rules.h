#pragma once
// Which meshes fit a run: the rules between the mesh, the model and the batch.

#include <string>
#include <vector>

#include "trainer/run_config.h"

namespace jamba {

/// Layers of each chunk, from text such as "5 3"; empty for empty text or text of another form.
std::vector<std::int64_t> parse_layers(const std::string& text);

/// Every broken rule, in words, with what would do; keys are full paths such as "parallel.tp".
/// Values must be in their ranges. world_size <= 0: the number of ranks is not known yet; rules
/// that need it are silent.
std::vector<ConfigFault> check_parallel(const RunConfig&, int world_size);

/// Errors: ConfigError with all of them, one a line.
void expect_sound_parallel(const RunConfig&, int world_size);

}  // namespace jamba

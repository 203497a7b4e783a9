#pragma once
// Which parts of a model a rank runs.

#include <cstdint>
#include <vector>

#include "parallel/mesh.h"
#include "trainer/model/model_config.h"

namespace jamba {

/// Consecutive layers [begin, end), with the embedding before them or the head behind them.
struct Chunk {
  std::int64_t begin = 0, end = 0;
  bool embedding = false;
  bool head = false;
};

/// The chunks of this rank's pipeline stage, in order: chunk c of stage s is number
/// c * pp + s of all chunks. layers_of_chunk: how many layers each has; empty: as even as it goes.
std::vector<Chunk> stage_chunks(const ModelConfig&, const MeshShape&, int stage, int num_chunks = 1,
                                const std::vector<std::int64_t>& layers_of_chunk = {});

}  // namespace jamba

#include "trainer/model/stage_layout.h"

#include "kernels/core/errors.h"
#include "parallel/pipeline_schedule.h"

namespace jamba {

std::vector<Chunk> stage_chunks(const ModelConfig& config, const MeshShape& mesh, int stage,
                                int num_chunks, const std::vector<std::int64_t>& layers_of_chunk) {
  const int total = mesh.pp * num_chunks;
  std::vector<std::int64_t> begins;
  if (layers_of_chunk.empty()) {
    for (const int first : split_layers(static_cast<int>(config.num_hidden_layers), total)) {
      begins.push_back(first);
    }
  } else {
    begins.push_back(0);
    for (const std::int64_t layers : layers_of_chunk) begins.push_back(begins.back() + layers);
  }
  JAMBA_CHECK(
      static_cast<int>(begins.size()) == total + 1 && begins.back() == config.num_hidden_layers,
      "{} layers in {} chunks", config.num_hidden_layers, total);
  std::vector<Chunk> chunks;
  for (int c = 0; c < num_chunks; ++c) {
    const std::size_t i = static_cast<std::size_t>(c) * static_cast<std::size_t>(mesh.pp) +
                          static_cast<std::size_t>(stage);
    chunks.push_back({begins[i], begins[i + 1], i == 0, i + 2 == begins.size()});
  }
  return chunks;
}

}  // namespace jamba

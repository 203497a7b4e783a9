#pragma once
// Text from a model, one token at a time, with the layers' states kept between tokens.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "trainer/model/jamba.h"
#include "trainer/model/workspace.h"

namespace jamba {

struct SamplingConfig {
  std::int64_t max_new_tokens = 128;
  double temperature = 0.8;  // 0: always the most probable token
  std::int64_t top_k = 0;    // keep the k most probable; 0: all
  double top_p = 1.0;        // keep the smallest set with this probability
  std::uint64_t seed = 1;
};

/// The index of the next token under the config. `draw` counts the tokens sampled so far: the same
/// (seed, draw, logits) gives the same token. Ties: the lower index.
std::int64_t sample_token(std::span<const float> logits, const SamplingConfig&, std::uint64_t draw);

/// One sequence in generation: Mamba states, convolution windows and KV caches of all layers.
class Generator {
 public:
  /// capacity: most tokens that the sequence may reach.
  Generator(Workspace&, const JambaModel&, DType compute_dtype, std::int64_t capacity);

  /// Runs the next tokens through the model. Returns the logits after the last of them; the span
  /// is valid until the next call.
  std::span<const float> feed(std::span<const std::int32_t> ids);

 private:
  void run_chunk(std::span<const std::int32_t> ids);

  Workspace& workspace_;
  const JambaModel& model_;
  DType dtype_;
  Arena state_memory_;
  std::vector<MixerState> states_;
  std::int64_t position_ = 0;
  std::vector<float> logits_;
};

/// Feeds the prompt, then samples until stop(token) holds or the config's limit is reached; calls
/// on_token for each sampled token but the one that stops.
/// Errors: LogicError for an empty prompt.
void generate(Generator&, std::span<const std::int32_t> prompt, const SamplingConfig&,
              const std::function<bool(std::int64_t)>& stop,
              const std::function<void(std::int64_t)>& on_token);

}  // namespace jamba

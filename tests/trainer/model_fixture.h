#pragma once
// A small model with random tokens, for tests of the whole model.

#include <string>
#include <vector>

#include "kernels/core/rng.h"
#include "trainer/microbatch_buffers.h"
#include "trainer/model/initialize.h"
#include "trainer/model/jamba.h"
#include "trainer/model/workspace.h"

namespace jamba::test {

/// Eight layers, 1 attention to 7 Mamba, 4 experts in every other layer; odd sizes on purpose.
inline ModelConfig small_config() {
  ModelConfig c;
  c.vocab_size = 61;
  c.hidden_size = 24;
  c.intermediate_size = 36;
  c.num_hidden_layers = 8;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.mamba_d_state = 8;
  c.num_experts = 4;
  c.router_aux_loss_coef = 0.01;
  c.init = InitKind::mamba;
  c.initializer_range = 0.2;
  return c;
}

/// A model with its memory, on `threads` threads.
struct SmallModel {
  explicit SmallModel(const ModelConfig& c, int threads = 1, DType dtype = DType::f32)
      : config(c),
        stream(Stream::cpu(threads)),
        parameters(c, dtype, Gradients::allocate),
        model(c, parameters),
        workspace(stream),
        saved(model.make_saved()) {
    initialize(stream, parameters, c, 7);
    workspace.activations().set_poison(true);
    workspace.scratch().set_poison(true);
  }

  /// Gradients of one microbatch, in the flat buffer of `parameters`.
  LossSums train(const Microbatch& batch, const LossScale& scale,
                 Recomputation recomputation = Recomputation::off,
                 const std::optional<RouterNoise>& noise = std::nullopt) {
    workspace.reset();
    model.start_gradients(stream);
    return model.train(workspace.context(Write::overwrite), batch, scale, noise, recomputation,
                       saved, [](std::int64_t) {});
  }
  std::vector<float> gradients() const {
    const Tensor flat = parameters.flat_gradients();
    return {flat.ptr<float>(), flat.ptr<float>() + flat.numel()};
  }

  ModelConfig config;
  Stream stream;
  Parameters parameters;
  JambaModel model;
  Workspace workspace;
  JambaModel::Saved saved;
};

/// Fills a batch with random tokens; documents begin at the given places of every sequence.
/// No padding ids: their embedding is zero, and the norm of a zero row is too steep for
/// differences.
inline void fill_random(const Batch& out, std::int64_t vocab, std::uint64_t seed,
                        const std::vector<std::int32_t>& document_starts = {0}) {
  const CounterRng rng(seed, "tokens");
  const std::int64_t seq = out.ids.dim(1);
  for (std::int64_t i = 0; i < out.ids.numel(); ++i) {
    const auto draw = static_cast<std::uint64_t>(i);
    out.ids.ptr<std::int32_t>()[i] = static_cast<std::int32_t>(1 + rng.below(2 * draw, vocab - 1));
    out.labels.ptr<std::int32_t>()[i] = static_cast<std::int32_t>(rng.below(2 * draw + 1, vocab));
    std::int32_t start = 0;
    for (const std::int32_t s : document_starts) start = s <= i % seq ? s : start;
    out.doc_start.ptr<std::int32_t>()[i] = start;
  }
}

}  // namespace jamba::test

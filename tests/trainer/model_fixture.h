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

/// A model on one rank with its memory, on `threads` threads.
struct SmallModel {
  explicit SmallModel(const ModelConfig& c, int threads = 1, DType dtype = DType::f32,
                      std::int64_t num_micro = 1)
      : config(c),
        stream(Stream::cpu(threads)),
        parameters(stream, c, mesh, {.compute_dtype = dtype, .zero = {.num_micro = num_micro}}),
        model(c, parameters),
        workspace(stream, mesh) {
    initialize(parameters, c, 7);
    workspace.activations().poison_on(stream);
    workspace.scratch().poison_on(stream);
  }

  /// Forward and backward of microbatch `micro` of a step.
  LossSums train(const Microbatch& batch, const LossScale& scale,
                 Recomputation recomputation = Recomputation::off, std::int64_t micro = 0) {
    workspace.reset();
    const Context ctx = workspace.context();
    LossSums sums;
    model.begin(ctx, batch, saved);
    model.forward(ctx, batch, recomputation, saved);
    parameters.set_microbatch(micro);
    const Tensor dx = model.begin_backward(ctx, batch, saved);
    model.head_backward(ctx, batch, scale, dx, saved, sums);
    model.backward(ctx, batch, scale, dx, recomputation, saved, sums);
    return sums;
  }
  void forward(const Context& ctx, const Microbatch& batch) {
    model.begin(ctx, batch, saved);
    model.forward(ctx, batch, Recomputation::off, saved);
  }
  /// Of all parameters, one after the other, after the last microbatch.
  std::vector<float> gradients() {
    parameters.finish_gradients();
    std::vector<float> out;
    for (const Parameters::Entry& entry : parameters.entries()) {
      const Tensor g = parameters.gradient(entry, parameters.owned(entry));
      out.insert(out.end(), g.ptr<float>(), g.ptr<float>() + g.numel());
    }
    return out;
  }

  ModelConfig config;
  Mesh mesh;
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

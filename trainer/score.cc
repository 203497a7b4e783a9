#include "trainer/score.h"

#include "kernels/core/host_view.h"

namespace jamba {

std::vector<float> score_tokens(Workspace& workspace, const JambaModel& model,
                                JambaModel::Saved& saved, std::span<const std::int64_t> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < model.config().vocab_size) continue;
    throw DataError(fmt::format("token {} at position {} is outside the vocabulary of {}", ids[i],
                                i, model.config().vocab_size));
  }
  if (ids.size() < 2) return {};
  workspace.reset();
  const Context ctx = workspace.context();
  const auto n = static_cast<std::int64_t>(ids.size()) - 1;  // the last token predicts nothing
  Microbatch batch;
  batch.ids = ctx.activation(DType::i32, {1, n});
  batch.labels = ctx.activation(DType::i32, {1, n});
  batch.sequences = {1, n, {}, ctx.activation(DType::i32, {n}), n, {}};
  const auto to_write = [&](const Tensor& t) { return HostView(ctx.stream, t, HostAccess::write); };
  const HostView inputs = to_write(batch.ids), labels = to_write(batch.labels),
                 positions = to_write(batch.sequences.positions);
  for (std::int64_t t = 0; t < n; ++t) {
    const auto at = static_cast<std::size_t>(t);
    inputs.ptr<std::int32_t>()[t] = static_cast<std::int32_t>(ids[at]);
    labels.ptr<std::int32_t>()[t] = static_cast<std::int32_t>(ids[at + 1]);
    positions.ptr<std::int32_t>()[t] = static_cast<std::int32_t>(t);
  }
  for (const HostView* view : {&inputs, &labels, &positions}) view->store();
  model.begin(ctx, batch, saved);
  model.forward(ctx, batch, Recomputation::on, saved);
  const Tensor loss = ctx.activation(DType::f32, {n});
  model.token_losses(ctx, loss, batch, saved);
  const HostView losses(ctx.stream, loss, HostAccess::read);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::size_t t = 0; t < out.size(); ++t) out[t] = -losses.ptr<float>()[t];
  return out;
}

}  // namespace jamba

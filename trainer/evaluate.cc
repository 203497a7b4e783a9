#include "trainer/evaluate.h"

#include <algorithm>

namespace jamba {

Evaluator::Evaluator(const DataConfig& data, const ModelConfig& model, std::int64_t batch,
                     std::int64_t max_tokens)
    : batch_(batch), buffers_(1, batch, data.seq_len) {
  const auto pad = static_cast<std::int32_t>(std::max<std::int64_t>(model.pad_token_id, 0));
  for (const DataSource& source : data.sources) {
    if (source.validation.empty()) continue;
    ValidationBatches batches(source.validation, data, model.vocab_size, max_tokens, pad);
    const double entropy = unigram_entropy(batches.store());
    sources_.push_back({source.name, std::move(batches), entropy});
  }
}

EvalRecord Evaluator::run(Communicator& comm, Workspace& workspace, const JambaModel& model,
                          std::int64_t step) {
  EvalRecord record;
  record.step = step;
  JambaModel::Saved saved = model.make_saved();
  double nll = 0, tokens = 0;
  for (Source& source : sources_) {
    record.sources.push_back(run_source(comm, workspace, model, saved, source));
    const EvalRecord::Source& result = record.sources.back();
    nll += result.loss * static_cast<double>(result.tokens);
    tokens += static_cast<double>(result.tokens);
  }
  record.mean_loss = tokens > 0 ? nll / tokens : 0;
  return record;
}

EvalRecord::Source Evaluator::run_source(Communicator& comm, Workspace& workspace,
                                         const JambaModel& model, JambaModel::Saved& saved,
                                         Source& source) {
  double sums[2] = {0, 0};  // negative log-likelihood, targets
  const std::int64_t count = source.batches.num_batches(comm.size(), batch_);
  for (std::int64_t i = 0; i < count; ++i) {
    if (source.batches.fill(i, comm.rank(), comm.size(), buffers_.tokens(0)) == 0) continue;
    workspace.reset();
    const Context ctx = workspace.context();
    const Microbatch batch = buffers_.model_view(0);
    model.forward(ctx, batch, std::nullopt, Recomputation::on, saved);
    const LossSums loss = model.loss(ctx, batch, saved);
    sums[0] += loss.nll;
    sums[1] += loss.targets;
  }
  const auto ranks = static_cast<std::size_t>(comm.size());
  std::vector<double> all(2 * ranks);
  comm.all_gather(
      workspace.stream(),
      Tensor(all.data(), DType::u8, {comm.size(), static_cast<std::int64_t>(sizeof sums)}),
      Tensor(sums, DType::u8, {static_cast<std::int64_t>(sizeof sums)}));
  double nll = 0, targets = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    nll += all[2 * r];
    targets += all[2 * r + 1];
  }
  return {source.name, targets > 0 ? nll / targets : 0, source.unigram_entropy,
          static_cast<std::int64_t>(targets)};
}

}  // namespace jamba

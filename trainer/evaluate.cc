#include "trainer/evaluate.h"

#include <algorithm>

namespace jamba {

Evaluator::Evaluator(const Mesh& mesh, Stream& stream, const DataConfig& data,
                     const ModelConfig& model, std::int64_t batch, std::int64_t max_tokens)
    : mesh_(mesh), batch_(batch), buffers_(mesh, stream, 1, batch, data.seq_len) {
  const auto pad = static_cast<std::int32_t>(std::max<std::int64_t>(model.pad_token_id, 0));
  for (const DataSource& source : data.sources) {
    if (source.validation.empty()) continue;
    ValidationBatches batches(source.validation, data, model.vocab_size, max_tokens, pad);
    const double entropy = unigram_entropy(batches.store());
    sources_.push_back({source.name, std::move(batches), entropy});
  }
}

EvalRecord Evaluator::run(Stream& stream, StageRunner& runner, std::int64_t step) {
  EvalRecord record;
  record.step = step;
  double nll = 0, tokens = 0;
  for (Source& source : sources_) {
    record.sources.push_back(run_source(stream, runner, source));
    const EvalRecord::Source& result = record.sources.back();
    nll += result.loss * static_cast<double>(result.tokens);
    tokens += static_cast<double>(result.tokens);
  }
  record.mean_loss = tokens > 0 ? nll / tokens : 0;
  return record;
}

/// Every rank makes every forward, also one without targets: others may wait for it in a mixture.
EvalRecord::Source Evaluator::run_source(Stream& stream, StageRunner& runner, Source& source) {
  LossSums sums;
  const int ranks = mesh_.shape().dp;
  const std::int64_t count = source.batches.num_batches(ranks, batch_);
  for (std::int64_t i = 0; i < count; ++i) {
    source.batches.fill(i, mesh_.at().dp, ranks, buffers_.tokens(0));
    buffers_.send(0);
    const Microbatch batch = buffers_.model_view(0);
    runner.forward(batch, Recomputation::on,
                   [&](const Context& ctx, const JambaModel& model, JambaModel::Saved& saved) {
                     if (model.chunk().head) model.add_losses(ctx, batch, saved, sums);
                   });
  }
  sums.all_reduce(stream, mesh_.world());
  const auto targets = static_cast<double>(sums.targets);
  return {source.name, targets > 0 ? sums.nll.value() / targets : 0, source.unigram_entropy,
          sums.targets};
}

}  // namespace jamba

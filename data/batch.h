#pragma once
// Which tokens a rank sees in which step: a pure function, with no state to save.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/data_config.h"
#include "data/token_store.h"
#include "kernels/core/tensor.h"

namespace jamba {

/// Where a batch is written, in memory of the caller.
/// Shapes: all [batch, seq_len].   Dtypes: all int32.
struct Batch {
  Tensor ids;
  /// The next token; kIgnoreLabel (-100) where there is none to predict: at the last token of a
  /// document if resets are on, and on padding.
  Tensor labels;
  /// Place in the sequence of the first token of the token's document; all 0 if resets are off.
  Tensor doc_start;
};

/// Training batches, drawn from weighted sources.
///
/// Sample g = step * global_batch + j belongs to one source, so that of any run of consecutive
/// samples each source has its share, to within the number of sources. Within a source, samples
/// walk its windows of seq_len + 1 tokens (neighbours share one token, so each token is a target
/// once) in an order that is shuffled anew for each epoch. Microbatch m holds samples m *
/// micro_batch and up of its step: the global batch is the same however ranks share it.
class TrainBatches {
 public:
  /// Opens the training store of every source with a weight above 0.
  /// vocab_size: the model's.   global_batch: sequences a step.
  /// Errors: NoInputError if a store or the tokenizer is missing; DataError if a store is damaged,
  /// shorter than seq_len + 1 tokens, or made by another tokenizer than the others or
  /// config.tokenizer, or if all windows together do not fill one global batch; ConfigError if the
  /// vocabulary size differs from the model's, or no source has a weight above 0.
  TrainBatches(const DataConfig& config, std::int64_t vocab_size, std::int64_t global_batch,
               std::uint64_t seed);

  /// Fills microbatch `micro` of a step's global batch; returns its number of targets.
  /// Errors: DataError if a token is outside the vocabulary; LogicError if shapes disagree, or the
  /// microbatch reaches beyond the global batch.
  std::int64_t fill(std::int64_t step, std::int64_t micro, const Batch& out);

  /// Source index and first token of global sample g, for inspection and tests.
  struct Place {
    std::size_t source;
    std::int64_t begin;
  };
  Place place(std::int64_t sample) const;

  /// Sources in use, in the order of the config.
  std::int64_t num_sources() const { return static_cast<std::int64_t>(sources_.size()); }
  const TokenStore& store(std::size_t source) const { return sources_[source].store; }
  /// Windows in an epoch of a source.
  std::int64_t num_windows(std::size_t source) const { return sources_[source].num_windows; }
  /// Training tokens in all stores.
  std::int64_t num_tokens() const;

 private:
  struct Source {
    std::string name;
    TokenStore store;
    std::int64_t num_windows = 0;
    std::uint64_t share = 0;  // of the samples left over by earlier sources, in units of 2^-32
  };

  std::int64_t seq_len_;
  bool reset_at_documents_;
  std::int64_t global_batch_;
  std::uint64_t seed_;
  std::vector<Source> sources_;
  std::vector<std::int32_t> window_;
};

/// One pass over the head of a validation store, in windows of seq_len + 1 tokens.
/// The last window may be padded; ranks without a window get padding only, so that every rank
/// makes the same number of batches.
class ValidationBatches {
 public:
  /// max_tokens: targets to visit at most, rounded up to whole windows; 0: all.
  /// pad_id: stands in padded places; any valid id will do, since nothing is predicted there.
  /// Errors: as TrainBatches, but a store shorter than a window is padded, not refused; DataError
  /// if it has fewer than 2 tokens.
  ValidationBatches(const std::string& path, const DataConfig& config, std::int64_t vocab_size,
                    std::int64_t max_tokens, std::int32_t pad_id);

  /// Batches that every rank makes.
  std::int64_t num_batches(int world_size, std::int64_t batch) const;
  /// Fills batch `index` of a rank; returns its number of targets, which may be 0.
  std::int64_t fill(std::int64_t index, int rank, int world_size, const Batch& out);

  const TokenStore& store() const { return store_; }

 private:
  std::int64_t seq_len_;
  bool reset_at_documents_;
  std::int32_t pad_id_;
  TokenStore store_;
  std::int64_t num_windows_ = 0;
  std::vector<std::int32_t> window_;
};

}  // namespace jamba

#include "data/batch.h"

#include <algorithm>
#include <cmath>

#include "data/permutation.h"
#include "data/tokenizer.h"
#include "kernels/core/errors.h"
#include "kernels/loss/cross_entropy.h"

namespace jamba {
namespace {

__extension__ using Wide = unsigned __int128;

/// Samples below g that go to a source with this share of 2^32.
std::int64_t quota(std::int64_t g, std::uint64_t share) {
  return static_cast<std::int64_t>((static_cast<Wide>(g) * share) >> 32);
}

void check_vocab(const TokenStore& store, std::int64_t vocab_size) {
  if (store.info().vocab_size == vocab_size) return;
  throw ConfigError(
      fmt::format("model.vocab_size is {}, but the tokens of {} come from a vocabulary of {}: set "
                  "model.vocab_size to {}",
                  vocab_size, store.path(), store.info().vocab_size, store.info().vocab_size));
}

void check_tokenizer(const TokenStore& store, const std::string& hash, const std::string& owner) {
  if (store.info().tokenizer_hash == hash) return;
  throw DataError(fmt::format("{}: made by tokenizer {}, but {} by {}: prepare both with the same",
                              store.path(), store.info().tokenizer_hash, owner, hash));
}

/// Which tokenizer all stores must come from, and who says so.
struct Expected {
  std::string hash;
  std::string owner;
};

Expected expected_tokenizer(const DataConfig& config) {
  if (config.tokenizer.empty()) return {};
  return {load_tokenizer(config.tokenizer)->hash(), "data.tokenizer " + config.tokenizer + " is"};
}

void check_batch(const Batch& batch, std::int64_t seq_len) {
  const std::int64_t rows = batch.ids.present() ? batch.ids.dim(0) : -1;
  expect_tensor("ids", batch.ids, DType::i32, {rows, seq_len});
  expect_tensor("labels", batch.labels, DType::i32, {rows, seq_len});
  expect_tensor("doc_start", batch.doc_start, DType::i32, {rows, seq_len});
}

/// The place of one sequence in a batch.
struct Row {
  std::int32_t* ids;
  std::int32_t* labels;
  std::int32_t* doc_start;
  std::int64_t seq_len;
};

Row row_of(const Batch& batch, std::int64_t row) {
  const std::int64_t seq_len = batch.ids.dim(1), offset = row * seq_len;
  return {batch.ids.ptr<std::int32_t>() + offset, batch.labels.ptr<std::int32_t>() + offset,
          batch.doc_start.ptr<std::int32_t>() + offset, seq_len};
}

/// Writes the `window` of tokens that starts at `begin` of the store; beyond its end the row is
/// filled with pad_id, each place a document of its own. Returns the number of targets.
std::int64_t write_row(const Row& row, std::span<const std::int32_t> window, std::int64_t begin,
                       const TokenStore& store, bool reset_at_documents, std::int32_t pad_id) {
  const auto size = static_cast<std::int64_t>(window.size());
  const std::span<const std::int64_t> documents = store.documents();
  auto document = static_cast<std::size_t>(size > 0 ? store.document_of(begin) : 0);
  std::int64_t targets = 0;
  for (std::int64_t t = 0; t < row.seq_len; ++t) {
    if (t >= size) {
      row.ids[t] = pad_id;
      row.labels[t] = kIgnoreLabel;
      row.doc_start[t] = reset_at_documents ? static_cast<std::int32_t>(t) : 0;
      continue;
    }
    if (begin + t == documents[document + 1]) ++document;
    const std::int64_t start = std::max<std::int64_t>(documents[document] - begin, 0);
    const bool last_of_document = begin + t + 1 == documents[document + 1];
    const bool predicts = t + 1 < size && !(reset_at_documents && last_of_document);
    row.ids[t] = window[static_cast<std::size_t>(t)];
    row.labels[t] = predicts ? window[static_cast<std::size_t>(t + 1)] : kIgnoreLabel;
    row.doc_start[t] = reset_at_documents ? static_cast<std::int32_t>(start) : 0;
    targets += predicts ? 1 : 0;
  }
  return targets;
}

}  // namespace

TrainBatches::TrainBatches(const DataConfig& config, std::int64_t vocab_size,
                           std::int64_t global_batch, std::uint64_t seed)
    : seq_len_(config.seq_len),
      reset_at_documents_(config.reset_at_documents),
      global_batch_(global_batch),
      seed_(seed),
      window_(static_cast<std::size_t>(config.seq_len + 1)) {
  JAMBA_CHECK(seq_len_ >= 1 && global_batch >= 1, "seq_len {}, global batch {}", seq_len_,
              global_batch);
  Expected expected = expected_tokenizer(config);
  double weight_left = 0;
  for (const DataSource& source : config.sources) weight_left += std::max(source.weight, 0.0);
  if (!(weight_left > 0) || !std::isfinite(weight_left)) {
    throw ConfigError("data.sources: no source has a finite weight above 0");
  }
  std::int64_t windows = 0;
  for (const DataSource& source : config.sources) {
    if (!(source.weight > 0)) continue;
    Source opened{.name = source.name, .store = TokenStore(source.train)};
    if (expected.hash.empty()) expected = {opened.store.info().tokenizer_hash, source.train};
    check_tokenizer(opened.store, expected.hash, expected.owner);
    check_vocab(opened.store, vocab_size);
    opened.num_windows = (opened.store.num_tokens() - 1) / seq_len_;
    if (opened.num_windows < 1) {
      throw DataError(fmt::format(
          "{}: holds {} tokens, fewer than one sequence of data.seq_len + 1 = {}: shorten "
          "data.seq_len or add text",
          source.train, opened.store.num_tokens(), seq_len_ + 1));
    }
    windows += opened.num_windows;
    opened.share = static_cast<std::uint64_t>(
        std::llround(std::ldexp(std::min(source.weight / weight_left, 1.0), 32)));
    weight_left -= source.weight;
    sources_.push_back(std::move(opened));
  }
  sources_.back().share = std::uint64_t{1} << 32;  // takes all that is left, whatever was rounded
  if (windows < global_batch_) {
    throw DataError(fmt::format(
        "all training sources together hold {} sequences of {} tokens, fewer than one global batch "
        "of {}: shorten data.seq_len, lower train.global_batch_size or add text",
        windows, seq_len_, global_batch_));
  }
}

TrainBatches::Place TrainBatches::place(std::int64_t sample) const {
  JAMBA_CHECK(sample >= 0, "sample {}", sample);
  std::int64_t ordinal = sample;  // among the samples left over by the sources before
  std::size_t index = 0;
  for (;; ++index) {
    const std::int64_t before = quota(ordinal, sources_[index].share);
    if (quota(ordinal + 1, sources_[index].share) > before) {
      ordinal = before;
      break;
    }
    ordinal -= before;
  }
  const Source& source = sources_[index];
  const std::int64_t epoch = ordinal / source.num_windows;
  const std::uint64_t stream = hash_name(fmt::format("{}: epoch {}", source.name, epoch));
  const std::int64_t window =
      Permutation(seed_, stream, source.num_windows)(ordinal % source.num_windows);
  // The windows shift a little from epoch to epoch, so that the tail of the store has its turn.
  const std::int64_t slack = source.store.num_tokens() - 1 - source.num_windows * seq_len_;
  const std::int64_t shift = CounterRng(seed_, ~stream).below(0, slack + 1);
  return {index, window * seq_len_ + shift};
}

std::int64_t TrainBatches::fill(std::int64_t step, std::int64_t micro, const Batch& out) {
  check_batch(out, seq_len_);
  const std::int64_t rows = out.ids.dim(0);
  JAMBA_CHECK(step >= 0 && micro >= 0 && (micro + 1) * rows <= global_batch_,
              "step {}, micro-batch {} of {} rows in a global batch of {}", step, micro, rows,
              global_batch_);
  const std::int64_t first = step * global_batch_ + micro * rows;
  std::int64_t targets = 0;
  for (std::int64_t b = 0; b < rows; ++b) {
    const Place where = place(first + b);
    const TokenStore& store = sources_[where.source].store;
    store.read(where.begin, window_);
    // Every place has a next token here, which the row itself does not hold.
    const Row row = row_of(out, b);
    targets += write_row(row, window_, where.begin, store, reset_at_documents_, 0);
  }
  return targets;
}

std::int64_t TrainBatches::num_tokens() const {
  std::int64_t sum = 0;
  for (const Source& source : sources_) sum += source.store.num_tokens();
  return sum;
}

ValidationBatches::ValidationBatches(const std::string& path, const DataConfig& config,
                                     std::int64_t vocab_size, std::int64_t max_tokens,
                                     std::int32_t pad_id)
    : seq_len_(config.seq_len),
      reset_at_documents_(config.reset_at_documents),
      pad_id_(pad_id),
      store_(path) {
  JAMBA_CHECK(seq_len_ >= 1 && max_tokens >= 0, "seq_len {}, max_tokens {}", seq_len_, max_tokens);
  const Expected expected = expected_tokenizer(config);
  if (!expected.hash.empty()) check_tokenizer(store_, expected.hash, expected.owner);
  check_vocab(store_, vocab_size);
  if (store_.num_tokens() < 2) {
    throw DataError(fmt::format("{}: holds {} tokens, at least 2 are needed to predict one", path,
                                store_.num_tokens()));
  }
  std::int64_t targets = store_.num_tokens() - 1;
  if (max_tokens > 0) targets = std::min(targets, max_tokens);
  num_windows_ = (targets + seq_len_ - 1) / seq_len_;
}

std::int64_t ValidationBatches::num_batches(int world_size, std::int64_t batch) const {
  JAMBA_CHECK(world_size >= 1 && batch >= 1, "{} ranks, batch {}", world_size, batch);
  return (num_windows_ + world_size * batch - 1) / (world_size * batch);
}

std::int64_t ValidationBatches::fill(std::int64_t index, int rank, int world_size,
                                     const Batch& out) {
  check_batch(out, seq_len_);
  const std::int64_t batch = out.ids.dim(0);
  JAMBA_CHECK(
      rank >= 0 && rank < world_size && index >= 0 && index < num_batches(world_size, batch),
      "batch {}, rank {} of {}", index, rank, world_size);
  std::int64_t targets = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t window = (index * world_size + rank) * batch + b;
    const std::int64_t begin = window * seq_len_;
    const std::int64_t size =
        window < num_windows_ ? std::min(seq_len_ + 1, store_.num_tokens() - begin) : 0;
    window_.resize(static_cast<std::size_t>(size));
    if (size > 0) store_.read(begin, window_);
    targets += write_row(row_of(out, b), window_, begin, store_, reset_at_documents_, pad_id_);
  }
  return targets;
}

}  // namespace jamba

#pragma once
// Documents as token ids on disk: HDF5 with /tokens, /documents and attributes.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5/file.h"

namespace jamba {

/// What a store was made of.
struct TokenStoreInfo {
  std::string source{};          // "wiki"
  std::string tokenizer_hash{};  // Tokenizer::hash()
  std::int64_t vocab_size = 0;
  std::int32_t bos_id = -1;  // first token of every document; -1: none
  std::int32_t eos_id = -1;  // last token of every document
};

/// Writes a store: documents are concatenated, each as [bos, tokens..., eos].
/// The path holds the whole store or nothing: content grows under path + ".partial".
/// Errors: CannotCreateError if `path` exists or cannot be made; IoError if writing fails.
class TokenStoreWriter {
 public:
  TokenStoreWriter(std::string path, TokenStoreInfo info);

  /// Errors: LogicError if a token is outside [0, vocab_size).
  void add_document(std::span<const std::int32_t> tokens);
  std::int64_t num_documents() const { return static_cast<std::int64_t>(documents_.size()) - 1; }
  std::int64_t num_tokens() const { return documents_.back(); }

  /// Makes the store durable and visible. No other call may follow.
  void close();

 private:
  void put(std::int32_t token);
  void flush();

  std::string path_;
  TokenStoreInfo info_;
  Hdf5Writer file_;
  std::vector<std::int64_t> documents_{0};
  std::vector<std::int32_t> pending_;
};

/// Random access to a store. Memory: the document offsets and one chunk cache; tokens stay on disk.
/// Errors: NoInputError if the file is missing; DataError with path and reason if it is not a whole
/// token store of this format version, or its document offsets do not rise from 0 to the number of
/// tokens.
class TokenStore {
 public:
  explicit TokenStore(std::string path);

  const std::string& path() const { return file_.path(); }
  const TokenStoreInfo& info() const { return info_; }
  std::int64_t num_tokens() const { return num_tokens_; }
  std::int64_t num_documents() const { return static_cast<std::int64_t>(documents_.size()) - 1; }
  /// Start of each document, then num_tokens().
  std::span<const std::int64_t> documents() const { return documents_; }
  /// Index of the document that holds a token.
  std::int64_t document_of(std::int64_t token) const;

  /// Copies tokens [begin, begin + out.size()).
  /// Errors: DataError with file, offset and id if an id is not below the vocabulary's size.
  void read(std::int64_t begin, std::span<std::int32_t> out) const;

 private:
  Hdf5Reader file_;
  TokenStoreInfo info_;
  Hdf5Type type_;
  std::int64_t num_tokens_ = 0;
  std::vector<std::int64_t> documents_;
};

/// Entropy in nats a token of the store's token frequencies, over all tokens that a model is asked
/// to predict: every one but the first of each document. What a model without context reaches.
double unigram_entropy(const TokenStore& store);

}  // namespace jamba

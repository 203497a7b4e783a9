#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace jamba {

struct PrepareOptions {
  std::vector<std::string> inputs{};  // documents, as data/documents.h reads them
  std::string output_dir{};
  std::string name = "text";  // source of documents that name none
  /// One store a source named in the documents; otherwise all go under `name`.
  bool split_sources = false;
  double validation_fraction = 0.01;  // of documents; 0: no validation stores
  int num_threads = 1;
};

struct PreparedStore {
  std::string path;  // empty: not written, for want of documents
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
};

struct PreparedSource {
  std::string name;
  PreparedStore train;
  PreparedStore validation;
  std::int64_t duplicates = 0;  // documents left out, equal to an earlier one of any source
  std::int64_t empty = 0;       // documents left out, without text
  std::int64_t text_bytes = 0;  // of documents kept
};

/// Turns documents into token stores OUTPUT_DIR/SOURCE.train.h5 and SOURCE.validation.h5.
/// A document's side depends on a hash of its title, or of its text if it has none, so it stays
/// when documents are added. A source with two titles or more has documents on both sides, unless
/// validation_fraction is 0. Returns the sources in order of their names.
/// Errors: NoInputError, DataError as for_each_document; DataError if no document has text;
/// ConfigError if an option or source name is out of range; CannotCreateError if a store exists.
/// Determinism: the same inputs and tokenizer give the same stores, for any number of threads.
std::vector<PreparedSource> prepare_stores(const PrepareOptions& options,
                                           const Tokenizer& tokenizer);

}  // namespace jamba

#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace jamba {

struct TokenizerTraining {
  std::vector<std::string> inputs{};  // documents, as data/documents.h reads them
  std::int64_t vocab_size = 0;
  /// Text beyond this many bytes is thinned out, line by line, evenly over all inputs.
  std::int64_t max_bytes = 256 << 20;
};

/// Trains a byte-pair vocabulary and writes it as a sentencepiece model: byte fallback, digits
/// apart, text taken as it is (no normalisation), pad 0, bos 1, eos 2, unknown 3, bytes from 4.
/// Errors: ConfigError if vocab_size is outside [300, 1000000] or more than the text yields;
/// DataError if the inputs hold no text; CannotCreateError if `output` exists or cannot be made.
/// Determinism: the same inputs give the same bytes.
void train_sentencepiece(const TokenizerTraining& training, const std::string& output);

}  // namespace jamba

#pragma once
// Text to token ids and back.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace jamba {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// The ids of a text, without bos or eos. Bytes that are not UTF-8 become U+FFFD in a
  /// sentencepiece model; the byte tokenizer keeps them.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  /// The text of ids; bos, eos and pad stand for nothing. For the byte tokenizer and models of
  /// train_sentencepiece, decode(encode(text)) == text for every UTF-8 text.
  /// Errors: LogicError if an id is outside [0, vocab_size).
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;

  virtual std::int64_t vocab_size() const = 0;
  virtual std::int32_t pad_id() const = 0;  // -1: none
  virtual std::int32_t bos_id() const = 0;  // -1: none
  virtual std::int32_t eos_id() const = 0;
  /// 16 hex digits that identify the vocabulary: XXH3-64 of the model file.
  virtual const std::string& hash() const = 0;
};

/// Loads a sentencepiece .model file; the name "bytes" gives the byte tokenizer: pad 0, bos 1,
/// eos 2, byte b as 3 + b, 259 ids.
/// Errors: NoInputError if the file is missing; DataError if it is no sentencepiece model, or has
/// no end-of-sentence token.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path_or_bytes);

}  // namespace jamba

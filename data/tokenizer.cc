#include "data/tokenizer.h"

#include <sentencepiece_processor.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

std::string hash_of(std::string_view bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

void check_id(std::int32_t id, std::int64_t vocab_size) {
  JAMBA_CHECK(id >= 0 && id < vocab_size, "token {} in a vocabulary of {}", id, vocab_size);
}

class ByteTokenizer : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> ids;
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(kFirstByte + static_cast<unsigned char>(c));
    return ids;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      check_id(id, vocab_size());
      if (id >= kFirstByte) text.push_back(static_cast<char>(id - kFirstByte));
    }
    return text;
  }

  std::int64_t vocab_size() const override { return kFirstByte + 256; }
  std::int32_t pad_id() const override { return 0; }
  std::int32_t bos_id() const override { return 1; }
  std::int32_t eos_id() const override { return 2; }
  const std::string& hash() const override { return hash_; }

 private:
  static constexpr std::int32_t kFirstByte = 3;
  std::string hash_ = hash_of("bytes");
};

/// Sentencepiece writes a space as this character, and reads it back as a space.
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::string& path, const std::string& model)
      : hash_(hash_of(model)) {
    const auto status = processor_.LoadFromSerializedProto(model);
    if (!status.ok()) {
      throw DataError(fmt::format("{}: not a sentencepiece model: {}", path, status.ToString()));
    }
    if (processor_.eos_id() < 0) {
      throw DataError(fmt::format("{}: the model has no end-of-sentence token", path));
    }
    for (const char byte : kSpaceMark) {
      const int id =
          processor_.PieceToId(fmt::format("<0x{:02X}>", static_cast<unsigned char>(byte)));
      if (processor_.IsByte(id)) mark_ids_.push_back(id);
    }
    if (mark_ids_.size() != kSpaceMark.size()) mark_ids_.clear();
  }

  /// A space mark in the text itself would come back as a space, so its bytes are spelled out.
  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> ids;
    while (!mark_ids_.empty()) {
      const std::size_t mark = text.find(kSpaceMark);
      if (mark == std::string_view::npos) break;
      encode_piece(text.substr(0, mark), ids);
      ids.insert(ids.end(), mark_ids_.begin(), mark_ids_.end());
      text.remove_prefix(mark + kSpaceMark.size());
    }
    encode_piece(text, ids);
    return ids;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    for (const std::int32_t id : ids) check_id(id, vocab_size());
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    JAMBA_CHECK(status.ok(), "cannot decode: {}", status.ToString());
    return text;
  }

  std::int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::int32_t pad_id() const override { return processor_.pad_id(); }
  std::int32_t bos_id() const override { return processor_.bos_id(); }
  std::int32_t eos_id() const override { return processor_.eos_id(); }
  const std::string& hash() const override { return hash_; }

 private:
  void encode_piece(std::string_view text, std::vector<std::int32_t>& ids) const {
    std::vector<int> piece_ids;
    const auto status = processor_.Encode({text.data(), text.size()}, &piece_ids);
    JAMBA_CHECK(status.ok(), "cannot encode: {}", status.ToString());
    ids.insert(ids.end(), piece_ids.begin(), piece_ids.end());
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::string hash_;
  std::vector<std::int32_t> mark_ids_;
};

std::string read_model(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (!file) {
    const std::string message = fmt::format("{}: cannot open the tokenizer: {} (errno {})", path,
                                            std::strerror(errno), errno);
    if (errno == ENOENT || errno == ENOTDIR) throw NoInputError(message);
    throw IoError(message);
  }
  content << file.rdbuf();
  if (file.bad() || content.bad()) throw IoError(fmt::format("{}: cannot read", path));
  return std::move(content).str();
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path_or_bytes) {
  if (path_or_bytes == "bytes") return std::make_unique<ByteTokenizer>();
  return std::make_unique<SentencePieceTokenizer>(path_or_bytes, read_model(path_or_bytes));
}

}  // namespace jamba

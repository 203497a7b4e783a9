#include "data/token_store.h"

#include <algorithm>
#include <cmath>

#include "data/output_file.h"
#include "kernels/core/errors.h"

namespace jamba {
namespace {

constexpr const char* kFormat = "jamba token store";
constexpr std::int64_t kVersion = 1;
/// 64 Ki tokens: a random window costs one read of 128 or 256 KiB.
constexpr std::int64_t kChunk = 1 << 16;
constexpr std::int64_t kPending = 16 * kChunk;
constexpr std::int64_t kMaxVocab = std::int64_t{1} << 31;

Hdf5Type type_for(std::int64_t vocab_size) {
  return vocab_size <= (1 << 16) ? Hdf5Type::u16 : Hdf5Type::u32;
}

template <class T>
std::span<std::byte> bytes_of(std::vector<T>& values) {
  return std::as_writable_bytes(std::span<T>(values));
}

}  // namespace

TokenStoreWriter::TokenStoreWriter(std::string path, TokenStoreInfo info)
    : path_(std::move(path)), info_(std::move(info)), file_(claim_output(path_)) {
  JAMBA_CHECK(info_.vocab_size > 0 && info_.vocab_size <= kMaxVocab, "vocabulary of {} ids",
              info_.vocab_size);
  file_.create_growing("tokens", type_for(info_.vocab_size), kChunk);
  file_.set_attribute("format", kFormat);
  file_.set_attribute("format_version", kVersion);
  file_.set_attribute("source", info_.source);
  file_.set_attribute("tokenizer_hash", info_.tokenizer_hash);
  file_.set_attribute("vocab_size", info_.vocab_size);
  file_.set_attribute("bos_id", std::int64_t{info_.bos_id});
  file_.set_attribute("eos_id", std::int64_t{info_.eos_id});
}

void TokenStoreWriter::put(std::int32_t token) {
  JAMBA_CHECK(token >= 0 && token < info_.vocab_size, "token {} in a vocabulary of {}", token,
              info_.vocab_size);
  pending_.push_back(token);
}

void TokenStoreWriter::add_document(std::span<const std::int32_t> tokens) {
  const std::size_t before = pending_.size();
  if (info_.bos_id >= 0) put(info_.bos_id);
  for (const std::int32_t token : tokens) put(token);
  put(info_.eos_id);
  documents_.push_back(documents_.back() + static_cast<std::int64_t>(pending_.size() - before));
  if (static_cast<std::int64_t>(pending_.size()) >= kPending) flush();
}

void TokenStoreWriter::flush() {
  const auto count = static_cast<std::int64_t>(pending_.size());
  const Hdf5Type type = type_for(info_.vocab_size);
  if (type == Hdf5Type::u16) {
    std::vector<std::uint16_t> narrow(pending_.size());
    std::transform(pending_.begin(), pending_.end(), narrow.begin(),
                   [](std::int32_t token) { return static_cast<std::uint16_t>(token); });
    file_.append("tokens", type, count, narrow.data());
  } else {
    file_.append("tokens", type, count, pending_.data());  // non-negative: the bits are the same
  }
  pending_.clear();
}

void TokenStoreWriter::close() {
  flush();
  const std::int64_t count = static_cast<std::int64_t>(documents_.size());
  file_.write("documents", Hdf5Type::i64, {&count, 1}, documents_.data());
  file_.close();
  publish_output(file_.path(), path_);
}

namespace {

TokenStoreInfo read_info(const Hdf5Reader& file) {
  const std::string& path = file.path();
  if (!file.has_attribute("format") || file.string_attribute("format") != kFormat) {
    throw DataError(fmt::format("{}: not a token store; make one with 'jamba data prepare'", path));
  }
  if (const std::int64_t version = file.int_attribute("format_version"); version != kVersion) {
    throw DataError(fmt::format("{}: token store of format version {}, this program reads {}", path,
                                version, kVersion));
  }
  TokenStoreInfo info;
  info.source = file.string_attribute("source");
  info.tokenizer_hash = file.string_attribute("tokenizer_hash");
  info.vocab_size = file.int_attribute("vocab_size");
  if (info.vocab_size < 1 || info.vocab_size > kMaxVocab) {
    throw DataError(
        fmt::format("{}: vocabulary size {} is outside [1, {}]", path, info.vocab_size, kMaxVocab));
  }
  const auto special = [&](const char* name, std::int64_t lowest) {
    const std::int64_t id = file.int_attribute(name);
    if (id < lowest || id >= info.vocab_size) {
      throw DataError(fmt::format("{}: {} {} is outside the vocabulary of {}", path, name, id,
                                  info.vocab_size));
    }
    return static_cast<std::int32_t>(id);
  };
  info.bos_id = special("bos_id", -1);
  info.eos_id = special("eos_id", 0);
  return info;
}

std::vector<std::int64_t> read_documents(const Hdf5Reader& file, std::int64_t num_tokens) {
  const std::int64_t any = -1;
  const Hdf5Dataset& dataset = file.expect("documents", Hdf5Type::i64, {&any, 1});
  std::vector<std::int64_t> documents(static_cast<std::size_t>(dataset.numel()));
  file.read("documents", bytes_of(documents));
  if (documents.empty() || documents.front() != 0 || documents.back() != num_tokens) {
    throw DataError(fmt::format("{}: document offsets must run from 0 to the {} tokens",
                                file.path(), num_tokens));
  }
  for (std::size_t i = 1; i < documents.size(); ++i) {
    if (documents[i] <= documents[i - 1]) {
      throw DataError(fmt::format("{}: document offset {} is {}, not above the one before, {}",
                                  file.path(), i, documents[i], documents[i - 1]));
    }
  }
  return documents;
}

template <class Stored>
void read_as(const Hdf5Reader& file, std::int64_t begin, std::int64_t vocab_size,
             std::span<std::int32_t> out) {
  std::vector<Stored> stored(out.size());
  file.read_rows("tokens", begin, static_cast<std::int64_t>(out.size()), bytes_of(stored));
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (static_cast<std::int64_t>(stored[i]) >= vocab_size) {
      throw DataError(fmt::format("{}: token {} at offset {} is outside the vocabulary of {}",
                                  file.path(), stored[i], begin + static_cast<std::int64_t>(i),
                                  vocab_size));
    }
    out[i] = static_cast<std::int32_t>(stored[i]);
  }
}

}  // namespace

TokenStore::TokenStore(std::string path)
    : file_(std::move(path)), info_(read_info(file_)), type_(type_for(info_.vocab_size)) {
  const std::int64_t any = -1;
  num_tokens_ = file_.expect("tokens", type_, {&any, 1}).numel();
  documents_ = read_documents(file_, num_tokens_);
}

std::int64_t TokenStore::document_of(std::int64_t token) const {
  JAMBA_CHECK(token >= 0 && token < num_tokens_, "token {} of {}", token, num_tokens_);
  return std::upper_bound(documents_.begin(), documents_.end(), token) - documents_.begin() - 1;
}

void TokenStore::read(std::int64_t begin, std::span<std::int32_t> out) const {
  if (type_ == Hdf5Type::u16) {
    read_as<std::uint16_t>(file_, begin, info_.vocab_size, out);
  } else {
    read_as<std::uint32_t>(file_, begin, info_.vocab_size, out);
  }
}

double unigram_entropy(const TokenStore& store) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(store.info().vocab_size));
  std::vector<std::int32_t> block;
  std::int64_t document = 0, total = 0;
  for (std::int64_t begin = 0; begin < store.num_tokens(); begin += kPending) {
    block.resize(static_cast<std::size_t>(std::min(kPending, store.num_tokens() - begin)));
    store.read(begin, block);
    for (std::size_t i = 0; i < block.size(); ++i) {
      const std::int64_t place = begin + static_cast<std::int64_t>(i);
      if (place == store.documents()[static_cast<std::size_t>(document)]) {
        ++document;
        continue;
      }
      ++counts[static_cast<std::size_t>(block[i])];
      ++total;
    }
  }
  double entropy = 0;
  for (const std::int64_t count : counts) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / static_cast<double>(total);
    entropy -= p * std::log(p);
  }
  return entropy;
}

}  // namespace jamba

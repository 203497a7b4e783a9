#include "data/prepare.h"

#include <xxhash.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <exception>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "data/documents.h"
#include "data/token_store.h"
#include "kernels/core/errors.h"

namespace jamba {
namespace {

/// What the first pass learns of a source, and what the second pass makes of it.
struct SourceState {
  PreparedSource result;
  std::uint64_t lowest = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t highest = 0;
  bool has_validation = false;
  std::uint64_t threshold = 0;  // documents with a hash up to it are for validation
  std::unique_ptr<TokenStoreWriter> train;
  std::unique_ptr<TokenStoreWriter> validation;
};

/// What the first pass decides for one document.
enum class Fate : std::uint8_t { keep, drop };

void check_source_name(const std::string& name) {
  const bool plain = !name.empty() && name.size() <= 100 && name[0] != '.' &&
                     std::all_of(name.begin(), name.end(), [](unsigned char c) {
                       return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
                     });
  if (plain) return;
  throw ConfigError(fmt::format(
      "source name '{}' cannot name a file: use letters, digits, '_', '-' and '.'", name));
}

std::uint64_t split_hash(const Document& document) {
  const std::string& key = document.title.empty() ? document.text : document.title;
  return XXH3_64bits(key.data(), key.size());
}

class Preparation {
 public:
  Preparation(const PrepareOptions& options, const Tokenizer& tokenizer)
      : options_(options), tokenizer_(tokenizer) {}

  std::vector<PreparedSource> run() {
    survey();
    for (auto& [name, source] : sources_) choose_threshold(source);
    write();
    std::vector<PreparedSource> results;
    results.reserve(sources_.size());
    for (auto& [name, source] : sources_) results.push_back(std::move(source.result));
    return results;
  }

 private:
  SourceState& source_of(const Document& document) {
    const bool named = options_.split_sources && !document.source.empty();
    const std::string& name = named ? document.source : options_.name;
    const auto it = sources_.find(name);
    if (it != sources_.end()) return it->second;
    check_source_name(name);
    SourceState& state = sources_[name];
    state.result.name = name;
    return state;
  }

  void survey() {
    std::set<std::pair<std::uint64_t, std::uint64_t>> seen;
    std::int64_t kept = 0;
    for_each_document(options_.inputs, [&](Document&& document) {
      SourceState& source = source_of(document);
      const XXH128_hash_t hash = XXH3_128bits(document.text.data(), document.text.size());
      const bool fresh = !document.text.empty() && seen.emplace(hash.high64, hash.low64).second;
      fates_.push_back(fresh ? Fate::keep : Fate::drop);
      if (!fresh) {
        ++(document.text.empty() ? source.result.empty : source.result.duplicates);
        return;
      }
      ++kept;
      source.result.text_bytes += static_cast<std::int64_t>(document.text.size());
      source.lowest = std::min(source.lowest, split_hash(document));
      source.highest = std::max(source.highest, split_hash(document));
    });
    if (kept == 0) {
      throw DataError(fmt::format("no document has text, in {}", fmt::join(options_.inputs, ", ")));
    }
  }

  /// Both sides get a document where there are two to tell apart.
  void choose_threshold(SourceState& source) const {
    source.has_validation = options_.validation_fraction > 0 && source.lowest < source.highest;
    if (!source.has_validation) return;
    const double wanted = std::ldexp(options_.validation_fraction, 64);
    const auto fraction = static_cast<std::uint64_t>(std::min(wanted, 0x1.fffffffffffffp63));
    source.threshold = std::clamp(fraction, source.lowest, source.highest - 1);
  }

  std::string store_path(const SourceState& source, const char* side) const {
    const std::string file = fmt::format("{}.{}.h5", source.result.name, side);
    return (std::filesystem::path(options_.output_dir) / file).string();
  }

  std::unique_ptr<TokenStoreWriter> open_store(const SourceState& source, PreparedStore& store,
                                               const char* side) const {
    store.path = store_path(source, side);
    return std::make_unique<TokenStoreWriter>(store.path,
                                              TokenStoreInfo{.source = source.result.name,
                                                             .tokenizer_hash = tokenizer_.hash(),
                                                             .vocab_size = tokenizer_.vocab_size(),
                                                             .bos_id = tokenizer_.bos_id(),
                                                             .eos_id = tokenizer_.eos_id()});
  }

  void open_stores() {
    std::error_code error;
    std::filesystem::create_directories(options_.output_dir, error);
    if (error) {
      throw CannotCreateError(fmt::format("{}: cannot create the directory: {} (errno {})",
                                          options_.output_dir, error.message(), error.value()));
    }
    for (auto& [name, source] : sources_) {
      if (source.result.text_bytes == 0) continue;
      source.train = open_store(source, source.result.train, "train");
      if (!source.has_validation) continue;
      source.validation = open_store(source, source.result.validation, "validation");
    }
  }

  void write() {
    open_stores();
    std::size_t index = 0;
    for_each_document(options_.inputs, [&](Document&& document) {
      if (index >= fates_.size()) throw_changed();
      if (fates_[index++] == Fate::drop) return;
      pending_bytes_ += document.text.size();
      pending_.push_back(std::move(document));
      if (pending_bytes_ >= kPendingBytes) flush();
    });
    if (index != fates_.size()) throw_changed();
    flush();
    for (auto& [name, source] : sources_) {
      finish(source.train.get(), source.result.train);
      finish(source.validation.get(), source.result.validation);
    }
  }

  /// Encodes the pending documents on all threads, then stores them in their order.
  void flush() {
    const auto count = static_cast<std::int64_t>(pending_.size());
    std::vector<std::vector<std::int32_t>> ids(pending_.size());
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic) num_threads(options_.num_threads)
    for (std::int64_t i = 0; i < count; ++i) {
      try {
        ids[static_cast<std::size_t>(i)] =
            tokenizer_.encode(pending_[static_cast<std::size_t>(i)].text);
      } catch (...) {
#pragma omp critical(jamba_prepare_failure)
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      SourceState& source = source_of(pending_[i]);
      const bool held_out = source.has_validation && split_hash(pending_[i]) <= source.threshold;
      TokenStoreWriter* store = held_out ? source.validation.get() : source.train.get();
      if (store == nullptr) throw_changed();
      store->add_document(ids[i]);
    }
    pending_.clear();
    pending_bytes_ = 0;
  }

  static void finish(TokenStoreWriter* writer, PreparedStore& store) {
    if (writer == nullptr) return;
    store.documents = writer->num_documents();
    store.tokens = writer->num_tokens();
    writer->close();
  }

  [[noreturn]] void throw_changed() const {
    throw DataError("the input files changed while they were read");
  }

  static constexpr std::size_t kPendingBytes = 4 << 20;

  const PrepareOptions& options_;
  const Tokenizer& tokenizer_;
  std::map<std::string, SourceState> sources_;
  std::vector<Fate> fates_;
  std::vector<Document> pending_;
  std::size_t pending_bytes_ = 0;
};

}  // namespace

std::vector<PreparedSource> prepare_stores(const PrepareOptions& options,
                                           const Tokenizer& tokenizer) {
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    throw ConfigError(
        fmt::format("validation fraction {} is outside [0, 1)", options.validation_fraction));
  }
  JAMBA_CHECK(options.num_threads >= 1, "{} threads", options.num_threads);
  check_source_name(options.name);
  return Preparation(options, tokenizer).run();
}

}  // namespace jamba

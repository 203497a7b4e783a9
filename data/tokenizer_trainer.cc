#include "data/tokenizer_trainer.h"

#include <fcntl.h>
#include <sentencepiece_trainer.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <unordered_map>

#include "data/documents.h"
#include "data/output_file.h"
#include "kernels/core/errors.h"
#include "kernels/core/rng.h"

namespace jamba {
namespace {

/// Hands lines that are in memory to sentencepiece.
class Lines : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(const std::vector<std::string>& lines) : lines_(lines) {}
  bool done() const override { return next_ >= lines_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return lines_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& lines_;
  std::size_t next_ = 0;
};

/// Share of the lines to keep so that about max_bytes remain.
double kept_share(const TokenizerTraining& training) {
  double bytes = 0;
  for (const std::string& path : training.inputs) {
    std::error_code missing;  // for_each_document will report it
    const auto size = std::filesystem::file_size(path, missing);
    if (!missing) bytes += static_cast<double>(size);
  }
  return bytes > 0 ? static_cast<double>(training.max_bytes) / bytes : 1.0;
}

/// Line breaks end a sentence: as tokens they are single bytes, apart from any word.
std::vector<std::string> load_lines(const TokenizerTraining& training) {
  const double share = kept_share(training);
  const CounterRng rng(0, "tokenizer training lines");
  std::vector<std::string> lines;
  std::uint64_t index = 0;
  for_each_document(training.inputs, [&](Document&& document) {
    std::string_view rest = document.text;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (!line.empty() && rng.uniform(index++) < share) lines.emplace_back(line);
    }
  });
  if (lines.empty()) {
    throw DataError(fmt::format("the inputs hold no text to train a tokenizer on: {}",
                                fmt::join(training.inputs, ", ")));
  }
  return lines;
}

std::unordered_map<std::string, std::string> trainer_options(std::int64_t vocab_size) {
  return {{"model_type", "bpe"},
          {"vocab_size", std::to_string(vocab_size)},
          {"byte_fallback", "true"},
          {"split_digits", "true"},
          {"allow_whitespace_only_pieces", "true"},
          {"normalization_rule_name", "identity"},
          {"add_dummy_prefix", "false"},
          {"remove_extra_whitespaces", "false"},
          {"character_coverage", "0.9995"},
          {"max_sentence_length", "1073741824"},
          {"num_threads", "1"},
          {"pad_id", "0"},
          {"bos_id", "1"},
          {"eos_id", "2"},
          {"unk_id", "3"},
          {"minloglevel", "2"}};
}

void write_file(const std::string& path, std::string_view content) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) {
    throw CannotCreateError(
        fmt::format("{}: cannot create: {} (errno {})", path, std::strerror(errno), errno));
  }
  while (!content.empty()) {
    const ::ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      ::close(fd);
      ::unlink(path.c_str());
      throw IoError(
          fmt::format("{}: cannot write: {} (errno {})", path, std::strerror(error), error));
    }
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  ::close(fd);  // publish_output syncs, and so sees what close could report
}

}  // namespace

void train_sentencepiece(const TokenizerTraining& training, const std::string& output) {
  if (training.vocab_size < 300 || training.vocab_size > 1'000'000) {
    throw ConfigError(
        fmt::format("tokenizer vocabulary size {} is outside [300, 1000000]", training.vocab_size));
  }
  JAMBA_CHECK(training.max_bytes > 0, "max_bytes {}", training.max_bytes);
  const std::string partial = claim_output(output);
  write_file(partial, "");  // a place that cannot be written shows now, not after the training
  std::string model;
  try {
    const std::vector<std::string> lines = load_lines(training);
    Lines iterator(lines);
    const auto status = sentencepiece::SentencePieceTrainer::Train(
        trainer_options(training.vocab_size), &iterator, &model);
    if (!status.ok()) {
      throw ConfigError(fmt::format("cannot train a tokenizer with a vocabulary of {}: {}",
                                    training.vocab_size, status.ToString()));
    }
  } catch (...) {
    ::unlink(partial.c_str());
    throw;
  }
  ::unlink(partial.c_str());
  write_file(partial, model);
  publish_output(partial, output);
}

}  // namespace jamba

// jamba data tokenizer | prepare | inspect

#include <cstdio>
#include <memory>
#include <string>

#include "data/prepare.h"
#include "data/token_store.h"
#include "data/tokenizer_trainer.h"
#include "kernels/core/errors.h"
#include "trainer/app/command.h"
#include "trainer/app/threads.h"
#include "trainer/metrics/format.h"

namespace jamba {

namespace {

void declare_tokenizer(CLI::App& app, Action& action) {
  struct Options {
    TokenizerTraining training;
    std::string output;
  };
  const auto options = std::make_shared<Options>();
  app.add_option("--input", options->training.inputs, ".jsonl or .txt files")->required();
  app.add_option("--vocab-size", options->training.vocab_size, "Pieces, special ones included")
      ->required();
  app.add_option("--output", options->output, "The .model file to write")->required();
  app.callback([options, &action] {
    action = [options] {
      train_sentencepiece(options->training, options->output);
      std::printf("%s: %lld pieces\n", options->output.c_str(),
                  static_cast<long long>(options->training.vocab_size));
      return 0;
    };
  });
}

void print_store(const PreparedStore& store, const char* side) {
  if (store.path.empty()) {
    std::printf("  %-10s none: too few documents\n", side);
    return;
  }
  std::printf("  %-10s %8lld documents  %8s tokens  %s\n", side,
              static_cast<long long>(store.documents),
              format_count(static_cast<double>(store.tokens)).c_str(), store.path.c_str());
}

void declare_prepare(CLI::App& app, Action& action) {
  struct Options {
    PrepareOptions prepare;
    std::string tokenizer;
  };
  const auto options = std::make_shared<Options>();
  PrepareOptions& p = options->prepare;
  app.add_option("--input", p.inputs, ".jsonl or .txt files")->required();
  app.add_option("--tokenizer", options->tokenizer, "sentencepiece .model, or bytes")->required();
  app.add_option("--output-dir", p.output_dir, "Directory for the token stores")->required();
  app.add_option("--name", p.name, "Source of documents that name none")->capture_default_str();
  app.add_flag("--split-sources", p.split_sources, "One store for each source");
  app.add_option("--validation-fraction", p.validation_fraction, "Share of documents held out")
      ->capture_default_str();
  app.callback([options, &action] {
    action = [options] {
      options->prepare.num_threads = threads_per_rank(0, 1);
      const auto tokenizer = load_tokenizer(options->tokenizer);
      for (const PreparedSource& source : prepare_stores(options->prepare, *tokenizer)) {
        std::printf("%s: %s of text, %lld duplicates and %lld empty documents left out\n",
                    source.name.c_str(), format_bytes(source.text_bytes).c_str(),
                    static_cast<long long>(source.duplicates),
                    static_cast<long long>(source.empty));
        print_store(source.train, "train");
        print_store(source.validation, "validation");
      }
      return 0;
    };
  });
}

int inspect_store(const std::string& path, const std::string& tokenizer_path,
                  std::int64_t documents) {
  const TokenStore store(path);
  const TokenStoreInfo& info = store.info();
  std::printf("%s\n  source      %s\n  documents   %lld\n  tokens      %lld\n", path.c_str(),
              info.source.c_str(), static_cast<long long>(store.num_documents()),
              static_cast<long long>(store.num_tokens()));
  std::printf("  vocabulary  %lld, tokenizer %s, bos %d, eos %d\n",
              static_cast<long long>(info.vocab_size), info.tokenizer_hash.c_str(), info.bos_id,
              info.eos_id);
  std::printf("  unigram entropy  %.4f nats a token\n", unigram_entropy(store));
  if (tokenizer_path.empty()) return 0;
  const auto tokenizer = load_tokenizer(tokenizer_path);
  if (tokenizer->hash() != info.tokenizer_hash) {
    throw DataError(fmt::format("{}: written with tokenizer {}, but {} is {}", path,
                                info.tokenizer_hash, tokenizer_path, tokenizer->hash()));
  }
  const auto bounds = store.documents();
  for (std::int64_t d = 0; d < std::min(documents, store.num_documents()); ++d) {
    const std::int64_t begin = bounds[static_cast<std::size_t>(d)];
    const std::int64_t size =
        std::min<std::int64_t>(bounds[static_cast<std::size_t>(d) + 1] - begin, 256);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(size));
    store.read(begin, ids);
    std::printf("--- document %lld, first %lld tokens\n%s\n", static_cast<long long>(d),
                static_cast<long long>(size), tokenizer->decode(ids).c_str());
  }
  return 0;
}

void declare_inspect_store(CLI::App& app, Action& action) {
  struct Options {
    std::string store, tokenizer;
    std::int64_t documents = 3;
  };
  const auto options = std::make_shared<Options>();
  app.add_option("store", options->store, "Token store")->required();
  app.add_option("--tokenizer", options->tokenizer, "Decode the first documents with it");
  app.add_option("--documents", options->documents, "How many")->capture_default_str();
  app.callback([options, &action] {
    action = [options] {
      return inspect_store(options->store, options->tokenizer, options->documents);
    };
  });
}

}  // namespace

void declare_data(CLI::App& app, Action& action) {
  app.require_subcommand(1);
  declare_tokenizer(*app.add_subcommand("tokenizer", "Train a sentencepiece BPE tokenizer"),
                    action);
  declare_prepare(*app.add_subcommand("prepare", "Write token stores from text"), action);
  declare_inspect_store(*app.add_subcommand("inspect", "Show a token store"), action);
}

}  // namespace jamba

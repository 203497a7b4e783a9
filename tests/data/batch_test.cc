#include "data/batch.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/core/memory.h"
#include "kernels/core/rng.h"
#include "tests/data/data_fixture.h"

namespace jamba {
namespace {

using test::expect_error;
using test::ScratchDir;
using test::small_info;
using test::write_store;

using Ids = std::vector<std::int32_t>;

/// Memory for one batch.
class OwnedBatch {
 public:
  OwnedBatch(std::int64_t rows, std::int64_t seq_len)
      : memory_(3 * rows * seq_len * 4), rows_(rows), seq_len_(seq_len) {}
  Batch batch() const {
    const Tensor all = memory_.tensor(DType::i32, {3, rows_, seq_len_});
    return {all.slice(0, 1).view({rows_, seq_len_}), all.slice(1, 1).view({rows_, seq_len_}),
            all.slice(2, 1).view({rows_, seq_len_})};
  }
  static Ids values(const Tensor& t) {
    return {t.ptr<std::int32_t>(), t.ptr<std::int32_t>() + t.numel()};
  }
  Ids ids() const { return values(batch().ids); }
  Ids labels() const { return values(batch().labels); }
  Ids doc_start() const { return values(batch().doc_start); }

 private:
  Buffer memory_;
  std::int64_t rows_, seq_len_;
};

/// A store of one document whose token at place i is 3 + (i * 7) % 47.
void write_sequence(const std::string& path, std::int64_t num_tokens, TokenStoreInfo info) {
  info.bos_id = -1;
  Ids tokens;
  for (std::int64_t i = 0; i + 1 < num_tokens; ++i) {
    tokens.push_back(static_cast<std::int32_t>(3 + (i * 7) % 47));
  }
  write_store(path, info, {tokens});
}

DataConfig config_of(std::vector<DataSource> sources, std::int64_t seq_len) {
  DataConfig config;
  config.sources = std::move(sources);
  config.seq_len = seq_len;
  return config;
}

/// The hand-made store: documents of 4, 2, 5 and 1 + 2 tokens.
///   place  0  1  2  3 |  4  5 |  6  7  8  9 10 | 11 12 13
///   token  1 10 11  2 |  1  2 |  1 20 21 22  2 |  1 30  2
void write_hand_made(const std::string& path) {
  write_store(path, small_info(), {{10, 11}, {}, {20, 21, 22}, {30}});
}

TEST(ValidationBatches, KnowsWhereDocumentsBeginAndEnd) {
  const ScratchDir dir;
  write_hand_made(dir.file("v.h5"));
  ValidationBatches batches(dir.file("v.h5"), config_of({}, 5), 50, 0, 0);
  ASSERT_EQ(batches.num_batches(1, 3), 1);
  const OwnedBatch out(3, 5);
  EXPECT_EQ(batches.fill(0, 0, 1, out.batch()), 10);
  EXPECT_EQ(out.ids(), (Ids{1, 10, 11, 2, 1,   //
                            2, 1, 20, 21, 22,  //
                            2, 1, 30, 2, 0}));
  EXPECT_EQ(out.labels(), (Ids{10, 11, 2, -100, 2,   //
                               -100, 20, 21, 22, 2,  //
                               -100, 30, 2, -100, -100}));
  EXPECT_EQ(out.doc_start(), (Ids{0, 0, 0, 0, 4,  //
                                  0, 1, 1, 1, 1,  //
                                  0, 1, 1, 1, 4}));
}

TEST(ValidationBatches, PredictsAcrossDocumentsWithoutResets) {
  const ScratchDir dir;
  write_hand_made(dir.file("v.h5"));
  DataConfig config = config_of({}, 5);
  config.reset_at_documents = false;
  ValidationBatches batches(dir.file("v.h5"), config, 50, 0, 0);
  const OwnedBatch out(3, 5);
  EXPECT_EQ(batches.fill(0, 0, 1, out.batch()), 13);
  EXPECT_EQ(out.labels(), (Ids{10, 11, 2, 1, 2,   //
                               1, 20, 21, 22, 2,  //
                               1, 30, 2, -100, -100}));
  EXPECT_EQ(out.doc_start(), Ids(15, 0));
}

/// Whatever the ranks and rows, the same windows come up, each once, padding apart.
TEST(ValidationBatches, SplitsTheSameWindowsOverAnyRanks) {
  const ScratchDir dir;
  write_sequence(dir.file("v.h5"), 103, small_info());
  ValidationBatches batches(dir.file("v.h5"), config_of({}, 8), 50, 0, 0);
  std::multiset<Ids> first;
  for (const int world : {1, 2, 3, 5, 20}) {
    for (const std::int64_t rows : {1, 4}) {
      std::multiset<Ids> seen;
      std::int64_t targets = 0;
      for (int rank = 0; rank < world; ++rank) {
        for (std::int64_t i = 0; i < batches.num_batches(world, rows); ++i) {
          const OwnedBatch out(rows, 8);
          targets += batches.fill(i, rank, world, out.batch());
          const Ids labels = out.labels();
          for (std::int64_t row = 0; row < rows; ++row) {
            const Ids label(labels.begin() + row * 8, labels.begin() + (row + 1) * 8);
            if (label != Ids(8, -100)) seen.insert(label);
          }
        }
      }
      EXPECT_EQ(targets, 102);
      if (first.empty()) first = seen;
      EXPECT_EQ(seen, first) << world << " ranks, " << rows << " rows";
    }
  }
  EXPECT_EQ(first.size(), 13u);
}

TEST(ValidationBatches, StopsAfterMaxTokens) {
  const ScratchDir dir;
  write_sequence(dir.file("v.h5"), 103, small_info());
  const auto windows = [&](std::int64_t max_tokens) {
    return ValidationBatches(dir.file("v.h5"), config_of({}, 8), 50, max_tokens, 0)
        .num_batches(1, 1);
  };
  EXPECT_EQ(windows(1), 1);
  EXPECT_EQ(windows(16), 2);
  EXPECT_EQ(windows(17), 3);
  EXPECT_EQ(windows(1000000), 13);
}

TEST(TrainBatches, IsTheSameGlobalBatchHoweverItIsCut) {
  const ScratchDir dir;
  write_sequence(dir.file("a.h5"), 500, small_info());
  write_sequence(dir.file("b.h5"), 900, small_info());
  const DataConfig config =
      config_of({{"a", dir.file("a.h5"), "", 1.0}, {"b", dir.file("b.h5"), "", 2.0}}, 9);
  TrainBatches batches(config, 50, 12, 1234);
  for (const std::int64_t step : {0, 1, 7, 100}) {
    Ids want;
    for (const std::int64_t rows : {12, 6, 4, 3, 2, 1}) {
      Ids got(12 * 9);
      const std::int64_t count = 12 / rows;
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t micro = count - 1 - i;  // ranks ask in any order
        const OwnedBatch out(rows, 9);
        EXPECT_EQ(batches.fill(step, micro, out.batch()), 9 * rows);
        const Ids ids = out.ids();
        std::copy(ids.begin(), ids.end(), got.begin() + micro * rows * 9);
      }
      if (want.empty()) want = got;
      EXPECT_EQ(got, want) << "step " << step << ", microbatches of " << rows;
    }
  }
}

TEST(TrainBatches, CoversEachWindowOncePerEpoch) {
  const ScratchDir dir;
  write_sequence(dir.file("a.h5"), 1 + 37 * 8, small_info());  // 37 windows, nothing over
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const TrainBatches batches(config_of({{"a", dir.file("a.h5"), "", 1.0}}, 8), 50, 1, seed);
    ASSERT_EQ(batches.num_windows(0), 37);
    std::vector<std::vector<std::int64_t>> epochs(3);
    for (std::int64_t g = 0; g < 3 * 37; ++g) {
      epochs[static_cast<std::size_t>(g / 37)].push_back(batches.place(g).begin);
    }
    for (const auto& epoch : epochs) {
      std::set<std::int64_t> windows(epoch.begin(), epoch.end());
      EXPECT_EQ(windows.size(), 37u);
      EXPECT_EQ(*windows.begin(), 0);
      EXPECT_EQ(*windows.rbegin(), 36 * 8);
    }
    EXPECT_NE(epochs[0], epochs[1]);
    EXPECT_NE(epochs[1], epochs[2]);
  }
}

/// A store that is no multiple of the window: windows keep their distance, and all tokens of the
/// tail come up in some epoch.
TEST(TrainBatches, LetsTheTailOfAStoreHaveItsTurn) {
  const ScratchDir dir;
  write_sequence(dir.file("a.h5"), 1 + 5 * 8 + 7, small_info());
  const TrainBatches batches(config_of({{"a", dir.file("a.h5"), "", 1.0}}, 8), 50, 1, 3);
  std::set<std::int64_t> shifts;
  for (std::int64_t epoch = 0; epoch < 100; ++epoch) {
    std::set<std::int64_t> windows;
    for (std::int64_t i = 0; i < 5; ++i) windows.insert(batches.place(epoch * 5 + i).begin);
    const std::int64_t shift = *windows.begin();
    std::set<std::int64_t> want;
    for (std::int64_t i = 0; i < 5; ++i) want.insert(shift + i * 8);
    EXPECT_EQ(windows, want);
    shifts.insert(shift);
  }
  EXPECT_EQ(shifts, (std::set<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(TrainBatches, GivesEachSourceItsShare) {
  const ScratchDir dir;
  std::vector<DataSource> sources;
  const std::vector<double> weights = {3.0, 0.0, 0.5, 1.25, 1e-3};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::string name = fmt::format("s{}", i);
    write_sequence(dir.file(name), 300, small_info());
    sources.push_back({name, dir.file(name), "", weights[i]});
  }
  const TrainBatches batches(config_of(sources, 8), 50, 4, 5);
  ASSERT_EQ(batches.num_sources(), 4);  // a weight of 0 does not train
  const std::vector<double> used = {3.0, 0.5, 1.25, 1e-3};
  std::vector<double> counts(4), total(4);
  constexpr std::int64_t kSamples = 20000;
  for (std::int64_t g = 0; g < kSamples; ++g) {
    const std::size_t source = batches.place(g).source;
    counts[source] += 1;
    for (std::size_t s = 0; s < 4; ++s) {
      const double want = static_cast<double>(g + 1) * used[s] / 4.751;
      EXPECT_TRUE(std::abs(counts[s] - want) <= 4.0) << "source " << s << " sample " << g;
    }
  }
  EXPECT_TRUE(counts[3] >= 3);
}

TEST(TrainBatches, WalksEverySourceEpochByEpoch) {
  const ScratchDir dir;
  write_sequence(dir.file("a.h5"), 1 + 11 * 8, small_info());
  write_sequence(dir.file("b.h5"), 1 + 23 * 8, small_info());
  const TrainBatches batches(
      config_of({{"a", dir.file("a.h5"), "", 1.0}, {"b", dir.file("b.h5"), "", 1.7}}, 8), 50, 1, 8);
  std::vector<std::vector<std::int64_t>> walks(2);
  for (std::int64_t g = 0; g < 500; ++g) {
    const TrainBatches::Place where = batches.place(g);
    walks[where.source].push_back(where.begin / 8);
  }
  for (std::size_t s = 0; s < 2; ++s) {
    const std::int64_t windows = batches.num_windows(s);
    for (std::int64_t begin = 0; begin + windows <= static_cast<std::int64_t>(walks[s].size());
         begin += windows) {
      const std::set<std::int64_t> epoch(walks[s].begin() + begin,
                                         walks[s].begin() + begin + windows);
      EXPECT_EQ(static_cast<std::int64_t>(epoch.size()), windows);
    }
  }
}

TEST(TrainBatches, WritesLabelsAndDocumentStartsLikeAPlainLoop) {
  const ScratchDir dir;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const CounterRng rng(seed, "documents");
    std::vector<Ids> documents;
    Ids flat;
    std::vector<std::int64_t> start_of;  // of the document of each token
    for (std::uint64_t d = 0; flat.size() < 400; ++d) {
      Ids document(static_cast<std::size_t>(rng.below(d, 20)));
      for (std::size_t i = 0; i < document.size(); ++i) {
        document[i] = static_cast<std::int32_t>(3 + (flat.size() + i) % 47);
      }
      const auto start = static_cast<std::int64_t>(flat.size());
      flat.push_back(1);
      flat.insert(flat.end(), document.begin(), document.end());
      flat.push_back(2);
      start_of.resize(flat.size(), start);
      documents.push_back(document);
    }
    const std::string path = dir.file(fmt::format("{}.h5", seed));
    write_store(path, small_info(), documents);
    TrainBatches batches(config_of({{"a", path, "", 1.0}}, 13), 50, 2, seed);
    for (std::int64_t step = 0; step < 20; ++step) {
      const OwnedBatch out(2, 13);
      const std::int64_t targets = batches.fill(step, 0, out.batch());
      std::int64_t want_targets = 0;
      for (std::int64_t b = 0; b < 2; ++b) {
        const std::int64_t begin = batches.place(step * 2 + b).begin;
        for (std::int64_t t = 0; t < 13; ++t) {
          const auto at = static_cast<std::size_t>(begin + t);
          const auto i = static_cast<std::size_t>(b * 13 + t);
          const bool same_document = start_of[at + 1] == start_of[at];
          EXPECT_EQ(out.ids()[i], flat[at]);
          EXPECT_EQ(out.labels()[i], same_document ? flat[at + 1] : -100);
          EXPECT_EQ(out.doc_start()[i], std::max<std::int64_t>(start_of[at] - begin, 0));
          want_targets += same_document ? 1 : 0;
        }
      }
      EXPECT_EQ(targets, want_targets);
    }
  }
}

TEST(TrainBatches, RefusesDataThatDoesNotFit) {
  const ScratchDir dir;
  write_sequence(dir.file("a.h5"), 101, small_info());
  TokenStoreInfo other = small_info();
  other.tokenizer_hash = "other";
  write_sequence(dir.file("b.h5"), 101, other);
  const DataSource a{"a", dir.file("a.h5"), "", 1.0}, b{"b", dir.file("b.h5"), "", 1.0};
  const auto open = [](const DataConfig& config, std::int64_t vocab, std::int64_t global_batch) {
    return [=] { TrainBatches batches(config, vocab, global_batch, 1); };
  };
  expect_error<DataError>("holds 101 tokens, fewer than one sequence of data.seq_len + 1 = 102",
                          open(config_of({a}, 101), 50, 1));
  EXPECT_NO_THROW(open(config_of({a}, 100), 50, 1)());
  expect_error<DataError>("hold 10 sequences of 10 tokens, fewer than one global batch of 11",
                          open(config_of({a}, 10), 50, 11));
  EXPECT_NO_THROW(open(config_of({a}, 10), 50, 10)());
  expect_error<ConfigError>("model.vocab_size is 64, but", open(config_of({a}, 10), 64, 1));
  expect_error<ConfigError>("set model.vocab_size to 50", open(config_of({a}, 10), 49, 1));
  expect_error<DataError>("b.h5: made by tokenizer other, but", open(config_of({a, b}, 10), 50, 1));
  expect_error<NoInputError>("none.h5",
                             open(config_of({{"c", dir.file("none.h5"), "", 1.0}}, 10), 50, 1));
  expect_error<ConfigError>("no source has a finite weight above 0",
                            open(config_of({{"a", dir.file("a.h5"), "", 0.0}}, 10), 50, 1));
  expect_error<ConfigError>("no source has a finite weight above 0",
                            open(config_of({}, 10), 50, 1));
  DataConfig with_tokenizer = config_of({a}, 10);
  with_tokenizer.tokenizer = "bytes";
  expect_error<DataError>("a.h5: made by tokenizer abc, but data.tokenizer bytes is",
                          open(with_tokenizer, 50, 1));
  with_tokenizer.tokenizer = dir.file("none.model");
  expect_error<NoInputError>("none.model", open(with_tokenizer, 50, 1));
}

TEST(ValidationBatches, RefusesDataThatDoesNotFit) {
  const ScratchDir dir;
  write_store(dir.file("one.h5"), {.tokenizer_hash = "abc", .vocab_size = 50, .eos_id = 2}, {{}});
  const auto open = [&](const std::string& name, std::int64_t vocab, const std::string& tokenizer) {
    return [&dir, name, vocab, tokenizer] {
      DataConfig config = config_of({}, 8);
      config.tokenizer = tokenizer;
      ValidationBatches batches(dir.file(name), config, vocab, 0, 0);
    };
  };
  expect_error<DataError>("holds 1 tokens, at least 2 are needed", open("one.h5", 50, ""));
  expect_error<ConfigError>("set model.vocab_size to 50", open("one.h5", 51, ""));
  expect_error<DataError>("made by tokenizer abc", open("one.h5", 50, "bytes"));
  expect_error<NoInputError>("none.h5", open("none.h5", 50, ""));
}

TEST(TrainBatches, ChecksItsArguments) {
  const ScratchDir dir;
  write_sequence(dir.file("a.h5"), 101, small_info());
  TrainBatches batches(config_of({{"a", dir.file("a.h5"), "", 1.0}}, 10), 50, 4, 1);
  const OwnedBatch two(2, 10), three(3, 10), wrong(2, 9);
  EXPECT_NO_THROW(batches.fill(0, 1, two.batch()));
  EXPECT_THROW(batches.fill(0, 2, two.batch()), LogicError);
  EXPECT_THROW(batches.fill(1, -1, two.batch()), LogicError);
  EXPECT_THROW(batches.fill(-1, 0, two.batch()), LogicError);
  EXPECT_THROW(batches.fill(0, 1, three.batch()), LogicError);
  EXPECT_THROW(batches.fill(0, 0, wrong.batch()), LogicError);
}

}  // namespace
}  // namespace jamba

#include "data/token_store.h"

#include <cmath>

#include "kernels/core/rng.h"
#include "tests/data/data_fixture.h"

namespace jamba {
namespace {

using test::expect_error;
using test::ScratchDir;
using test::small_info;
using test::write_store;

std::vector<std::int32_t> read_all(const TokenStore& store) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(store.num_tokens()));
  store.read(0, tokens);
  return tokens;
}

std::vector<std::int64_t> offsets(const TokenStore& store) {
  return {store.documents().begin(), store.documents().end()};
}

TEST(TokenStore, FramesDocumentsWithBosAndEos) {
  const ScratchDir dir;
  write_store(dir.file("a.h5"), small_info(), {{10, 11}, {}, {49}});
  const TokenStore store(dir.file("a.h5"));
  EXPECT_EQ(read_all(store), (std::vector<std::int32_t>{1, 10, 11, 2, 1, 2, 1, 49, 2}));
  EXPECT_EQ(offsets(store), (std::vector<std::int64_t>{0, 4, 6, 9}));
  EXPECT_EQ(store.num_documents(), 3);
  EXPECT_EQ(store.document_of(0), 0);
  EXPECT_EQ(store.document_of(3), 0);
  EXPECT_EQ(store.document_of(4), 1);
  EXPECT_EQ(store.document_of(8), 2);
  EXPECT_EQ(store.info().source, "test");
  EXPECT_EQ(store.info().tokenizer_hash, "abc");
  EXPECT_EQ(store.info().vocab_size, 50);
  EXPECT_EQ(store.info().bos_id, 1);
  EXPECT_EQ(store.info().eos_id, 2);
}

TEST(TokenStore, NeedsNoBos) {
  const ScratchDir dir;
  TokenStoreInfo info = small_info();
  info.bos_id = -1;
  write_store(dir.file("a.h5"), info, {{10}});
  EXPECT_EQ(read_all(TokenStore(dir.file("a.h5"))), (std::vector<std::int32_t>{10, 2}));
}

TEST(TokenStore, GivesBackRandomRangesOfLargeStores) {
  const ScratchDir dir;
  for (const std::int64_t vocab : {50, 1 << 16, 100000}) {
    const CounterRng rng(7, static_cast<std::uint64_t>(vocab));
    TokenStoreInfo info = small_info();
    info.vocab_size = vocab;
    info.bos_id = -1;
    std::vector<std::int32_t> all;
    const std::string path = dir.file(fmt::format("{}.h5", vocab));
    {
      TokenStoreWriter writer(path, info);
      std::uint64_t draw = 0;
      while (all.size() < 1'300'000) {  // several chunks, and more than one flush
        std::vector<std::int32_t> document(static_cast<std::size_t>(rng.below(draw++, 5000)));
        for (auto& token : document) token = static_cast<std::int32_t>(rng.below(draw++, vocab));
        writer.add_document(document);
        all.insert(all.end(), document.begin(), document.end());
        all.push_back(2);
      }
      writer.close();
    }
    const TokenStore store(path);
    ASSERT_EQ(store.num_tokens(), static_cast<std::int64_t>(all.size()));
    EXPECT_EQ(read_all(store), all);
    for (std::uint64_t i = 0; i < 50; ++i) {
      const std::int64_t begin = rng.below(1'000'000'000 + 2 * i, store.num_tokens());
      const std::int64_t count =
          rng.below(1'000'000'001 + 2 * i, std::min<std::int64_t>(store.num_tokens() - begin, 999));
      std::vector<std::int32_t> range(static_cast<std::size_t>(count));
      store.read(begin, range);
      EXPECT_TRUE(std::equal(range.begin(), range.end(), all.begin() + begin));
    }
  }
}

TEST(TokenStoreWriter, AppearsOnlyWhenItIsWhole) {
  const ScratchDir dir;
  const std::string path = dir.file("a.h5");
  {
    TokenStoreWriter writer(path, small_info());
    writer.add_document({});
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  test::write_bytes(path + ".partial", "left by a killed run");
  write_store(path, small_info(), {{10}});
  EXPECT_EQ(TokenStore(path).num_tokens(), 3);
  expect_error<CannotCreateError>("a.h5: exists already",
                                  [&] { write_store(path, small_info(), {}); });
  expect_error<CannotCreateError>("cannot create",
                                  [&] { write_store(dir.file("missing/a.h5"), small_info(), {}); });
}

TEST(TokenStoreWriter, RefusesTokensOutsideTheVocabulary) {
  const ScratchDir dir;
  TokenStoreWriter writer(dir.file("a.h5"), small_info());
  EXPECT_THROW(writer.add_document(std::vector<std::int32_t>{50}), LogicError);
  EXPECT_THROW(writer.add_document(std::vector<std::int32_t>{-1}), LogicError);
}

/// A store written by hand, with one thing changed from a right one.
struct Forged {
  std::string format = "jamba token store";
  std::int64_t version = 1, vocab_size = 50, eos_id = 2;
  std::vector<std::uint16_t> tokens = {1, 10, 2, 1, 11, 2};
  std::vector<std::int64_t> documents = {0, 3, 6};
  bool wide = false, no_documents = false, two_dims = false;

  void write(const std::string& path) const {
    std::filesystem::remove(path);
    Hdf5Writer file(path);
    const auto count = static_cast<std::int64_t>(tokens.size());
    const std::vector<std::int32_t> as_wide(tokens.begin(), tokens.end());
    std::vector<std::int64_t> dims = {count};
    if (two_dims) dims.push_back(1);
    if (wide) {
      file.write("tokens", Hdf5Type::u32, dims, as_wide.data());
    } else {
      file.write("tokens", Hdf5Type::u16, dims, tokens.data());
    }
    dims = {static_cast<std::int64_t>(documents.size())};
    if (!no_documents) file.write("documents", Hdf5Type::i64, dims, documents.data());
    file.set_attribute("format", format);
    file.set_attribute("format_version", version);
    file.set_attribute("source", "test");
    file.set_attribute("tokenizer_hash", "abc");
    file.set_attribute("vocab_size", vocab_size);
    file.set_attribute("bos_id", std::int64_t{1});
    file.set_attribute("eos_id", eos_id);
    file.close();
  }
};

TEST(TokenStore, RefusesStoresThatBreakAnyRule) {
  const ScratchDir dir;
  const std::string path = dir.file("forged.h5");
  const auto expect_refused = [&](const std::string& why, const Forged& forged) {
    forged.write(path);
    expect_error<DataError>("forged.h5: ", [&] { TokenStore store(path); });
    expect_error<DataError>(why, [&] { TokenStore store(path); });
  };
  Forged{}.write(path);
  EXPECT_EQ(TokenStore(path).num_tokens(), 6);
  expect_refused("not a token store", {.format = "jamba checkpoint"});
  expect_refused("format version 2, this program reads 1", {.version = 2});
  expect_refused("vocabulary size 0 is outside", {.vocab_size = 0});
  expect_refused("vocabulary size", {.vocab_size = std::int64_t{1} << 40});
  expect_refused("eos_id -1 is outside the vocabulary of 50", {.eos_id = -1});
  expect_refused("eos_id 50 is outside the vocabulary of 50", {.eos_id = 50});
  expect_refused("'tokens' is uint32[6], expected uint16[-1]", {.wide = true});
  expect_refused("'tokens' is uint16[6, 1]", {.two_dims = true});
  expect_refused("has no dataset 'documents'", {.no_documents = true});
  expect_refused("must run from 0 to the 6 tokens", {.documents = {1, 3, 6}});
  expect_refused("must run from 0 to the 6 tokens", {.documents = {0, 3, 5}});
  expect_refused("must run from 0 to the 6 tokens", {.documents = {0, 3, 7}});
  expect_refused("must run from 0 to the 6 tokens", {.documents = {}});
  expect_refused("document offset 2 is 2, not above the one before, 3",
                 {.documents = {0, 3, 2, 6}});
  expect_refused("document offset 2 is 3", {.documents = {0, 3, 3, 6}});
  expect_refused("document offset 1 is -3", {.documents = {0, -3, 3, 6}});
  expect_refused("document offset 2 is 6", {.documents = {0, std::int64_t{1} << 62, 6}});
}

TEST(TokenStore, NamesTheFirstTokenOutsideTheVocabulary) {
  const ScratchDir dir;
  const std::string path = dir.file("forged.h5");
  Forged{.tokens = {1, 10, 2, 1, 50, 2}}.write(path);
  const TokenStore store(path);
  std::vector<std::int32_t> tokens(3);
  store.read(0, tokens);
  expect_error<DataError>("forged.h5: token 50 at offset 4 is outside the vocabulary of 50",
                          [&] { store.read(2, tokens); });
  expect_error<DataError>("token 50 at offset 4", [&] { unigram_entropy(store); });
}

TEST(TokenStore, RefusesTruncatedFilesAndOtherFiles) {
  const ScratchDir dir;
  write_store(dir.file("a.h5"), small_info(), {{10, 11}, {12}});
  const std::string whole = test::read_bytes(dir.file("a.h5"));
  for (std::size_t cut : {std::size_t{0}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    test::write_bytes(dir.file("cut.h5"), whole.substr(0, cut));
    expect_error<DataError>("cut.h5: not a complete HDF5 file",
                            [&] { TokenStore store(dir.file("cut.h5")); });
  }
  expect_error<NoInputError>("none.h5", [&] { TokenStore store(dir.file("none.h5")); });
  Hdf5Writer other(dir.file("other.h5"));
  other.close();
  expect_error<DataError>("other.h5: not a token store; make one with 'jamba data prepare'",
                          [&] { TokenStore store(dir.file("other.h5")); });
}

TEST(UnigramEntropy, CountsEveryTokenButTheFirstOfADocument) {
  const ScratchDir dir;
  write_store(dir.file("a.h5"), small_info(), {{10, 10, 10}, {10, 11}});
  // Targets: 10 four times, 11 once, eos twice.
  double want = 0;
  for (const double p : {4.0 / 7, 1.0 / 7, 2.0 / 7}) want -= p * std::log(p);
  EXPECT_NEAR(unigram_entropy(TokenStore(dir.file("a.h5"))), want, 1e-12);
}

}  // namespace
}  // namespace jamba

#include "data/prepare.h"

#include <nlohmann/json.hpp>
#include <set>

#include "data/documents.h"
#include "data/token_store.h"
#include "tests/data/data_fixture.h"

namespace jamba {
namespace {

using test::expect_error;
using test::ScratchDir;

std::string line(const std::string& text, const std::string& source = "",
                 const std::string& title = "") {
  nlohmann::json json{{"text", text}};
  if (!source.empty()) json["source"] = source;
  if (!title.empty()) json["title"] = title;
  return json.dump() + "\n";
}

std::vector<std::string> texts(const TokenStore& store) {
  const auto tokenizer = load_tokenizer("bytes");
  std::vector<std::string> result;
  for (std::int64_t d = 0; d < store.num_documents(); ++d) {
    const std::int64_t begin = store.documents()[static_cast<std::size_t>(d)];
    const std::int64_t end = store.documents()[static_cast<std::size_t>(d + 1)];
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(end - begin));
    store.read(begin, tokens);
    EXPECT_EQ(tokens.front(), 1);
    EXPECT_EQ(tokens.back(), 2);
    result.push_back(tokenizer->decode(tokens));
  }
  return result;
}

std::vector<PreparedSource> prepare(const PrepareOptions& options) {
  return prepare_stores(options, *load_tokenizer("bytes"));
}

TEST(Documents, AreReadInOrderFromLinesAndTexts) {
  const ScratchDir dir;
  test::write_bytes(dir.file("a.jsonl"),
                    line("one", "s", "t") + "\n  \r\n" + line("two\nlines") + R"({"text":"last"})");
  test::write_bytes(dir.file("essay.txt"), "all\n\nof it");
  std::vector<std::string> seen;
  for_each_document({dir.file("a.jsonl"), dir.file("essay.txt")},
                    [&](Document&& d) { seen.push_back(d.text + "|" + d.source + "|" + d.title); });
  EXPECT_EQ(seen,
            (std::vector<std::string>{"one|s|t", "two\nlines||", "last||", "all\n\nof it||essay"}));
}

TEST(Documents, NameTheLineThatIsWrong) {
  const ScratchDir dir;
  const auto read = [&](const std::string& name) {
    return [&dir, name] { for_each_document({dir.file(name)}, [](Document&&) {}); };
  };
  const auto expect_bad_line = [&](const std::string& bad, const std::string& why) {
    test::write_bytes(dir.file("a.jsonl"), line("fine") + bad + "\n" + line("fine"));
    expect_error<DataError>("a.jsonl:2: " + why, read("a.jsonl"));
  };
  expect_bad_line("{\"text\": \"cut", "not a JSON object (byte 14)");
  expect_bad_line("plain words", "not a JSON object");
  expect_bad_line("[1, 2]", "not a JSON object");
  expect_bad_line("{\"txt\": \"a\"}", "has no \"text\"");
  expect_bad_line("{\"text\": 5}", "\"text\" is not a string");
  expect_bad_line("{\"text\": \"a\", \"title\": []}", "\"title\" is not a string");
  expect_bad_line("{\"text\": \"\xff\"}", "not a JSON object");
  expect_bad_line("{\"text\": \"\\ud800\"}", "not a JSON object");
  expect_bad_line(std::string(100000, '['), "not a JSON object");
  test::write_bytes(dir.file("a.txt"), "ab\xff");
  expect_error<DataError>("a.txt: not UTF-8 text at byte 2", read("a.txt"));
  test::write_bytes(dir.file("a.doc"), "ab");
  expect_error<DataError>("a.doc: expected a .jsonl or .txt file", read("a.doc"));
  expect_error<NoInputError>("none.txt: cannot open: No such file or directory", read("none.txt"));
  std::filesystem::create_directory(dir.file("dir.txt"));
  expect_error<DataError>("dir.txt: is a directory", read("dir.txt"));
}

TEST(Prepare, KeepsEveryDistinctDocumentOnOneSide) {
  const ScratchDir dir;
  std::string input;
  std::set<std::string> all;
  for (int i = 0; i < 2000; ++i) {
    all.insert(fmt::format("document {}", i));
    input += line(fmt::format("document {}", i));
    if (i % 4 == 0) input += line(fmt::format("document {}", i / 2));
    if (i % 5 == 0) input += line("");
  }
  test::write_bytes(dir.file("in.jsonl"), input);
  const auto sources = prepare({.inputs = {dir.file("in.jsonl")},
                                .output_dir = dir.file("out/deep"),
                                .validation_fraction = 0.1,
                                .num_threads = 2});
  ASSERT_EQ(sources.size(), 1u);
  const PreparedSource& source = sources[0];
  EXPECT_EQ(source.name, "text");
  EXPECT_EQ(source.duplicates, 500);
  EXPECT_EQ(source.empty, 400);
  EXPECT_EQ(source.train.documents + source.validation.documents, 2000);
  EXPECT_TRUE(source.validation.documents > 130 && source.validation.documents < 270);
  EXPECT_EQ(source.train.path, dir.file("out/deep/text.train.h5"));
  const TokenStore train(source.train.path), validation(source.validation.path);
  EXPECT_EQ(train.num_tokens(), source.train.tokens);
  EXPECT_EQ(train.info().source, "text");
  EXPECT_EQ(train.info().vocab_size, 259);
  EXPECT_EQ(train.info().tokenizer_hash, load_tokenizer("bytes")->hash());
  const auto left = texts(train), right = texts(validation);
  std::set<std::string> both(left.begin(), left.end());
  both.insert(right.begin(), right.end());
  EXPECT_EQ(both, all);
  EXPECT_EQ(left.size() + right.size(), all.size());
  std::int64_t bytes = 0;
  for (const std::string& text : all) bytes += static_cast<std::int64_t>(text.size());
  EXPECT_EQ(source.text_bytes, bytes);
  EXPECT_EQ(train.num_tokens() + validation.num_tokens(), bytes + 2 * 2000);
}

TEST(Prepare, SplitsByTitleAndNotByOrder) {
  const ScratchDir dir;
  const auto side = [&](const std::string& name, const std::string& input) {
    test::write_bytes(dir.file("in.jsonl"), input);
    const auto sources = prepare({.inputs = {dir.file("in.jsonl")},
                                  .output_dir = dir.file(name),
                                  .validation_fraction = 0.5});
    const auto held_out = texts(TokenStore(sources[0].validation.path));
    return std::set<std::string>(held_out.begin(), held_out.end());
  };
  std::string forward, backward;
  for (int i = 0; i < 200; ++i) {
    const std::string title = fmt::format("title {}", i / 2);
    forward += line(fmt::format("text {}", i), "", title);
    backward = line(fmt::format("text {}", i), "", title) + backward;
  }
  const auto held_out = side("forward", forward);
  EXPECT_EQ(held_out, side("backward", backward));
  for (int i = 0; i < 200; i += 2) {
    EXPECT_EQ(held_out.contains(fmt::format("text {}", i)),
              held_out.contains(fmt::format("text {}", i + 1)));
  }
}

TEST(Prepare, HoldsOutADocumentOfEvenTheSmallestCorpus) {
  const ScratchDir dir;
  for (int count = 1; count <= 6; ++count) {
    for (const double fraction : {1e-9, 0.01, 0.5, 0.999999}) {
      std::string input;
      for (int i = 0; i < count; ++i) input += line(fmt::format("{} of {}", i, count));
      test::write_bytes(dir.file("in.jsonl"), input);
      const std::string out = dir.file(fmt::format("{}-{}", count, fraction));
      const auto source = prepare({.inputs = {dir.file("in.jsonl")},
                                   .output_dir = out,
                                   .validation_fraction = fraction})[0];
      EXPECT_EQ(source.train.documents + source.validation.documents, count);
      EXPECT_GE(source.train.documents, 1);
      EXPECT_EQ(source.validation.documents >= 1, count >= 2);
      EXPECT_EQ(source.validation.path.empty(), count < 2);
    }
  }
  const auto whole = prepare({.inputs = {dir.file("in.jsonl")},
                              .output_dir = dir.file("whole"),
                              .validation_fraction = 0})[0];
  EXPECT_EQ(whole.train.documents, 6);
  EXPECT_EQ(whole.validation.path, "");
}

TEST(Prepare, MakesOneStoreASource) {
  const ScratchDir dir;
  test::write_bytes(dir.file("in.jsonl"), line("w1", "wiki") + line("p1", "plays") +
                                              line("w2", "wiki") + line("p2", "plays") +
                                              line("n1") + line("w1", "plays"));
  const auto sources = prepare({.inputs = {dir.file("in.jsonl")},
                                .output_dir = dir.file("out"),
                                .name = "rest",
                                .split_sources = true});
  ASSERT_EQ(sources.size(), 3u);
  EXPECT_EQ(sources[0].name, "plays");
  EXPECT_EQ(sources[0].duplicates, 1);  // equal to a document of wiki
  EXPECT_EQ(sources[0].train.documents + sources[0].validation.documents, 2);
  EXPECT_EQ(sources[1].name, "rest");
  EXPECT_EQ(texts(TokenStore(sources[1].train.path)), std::vector<std::string>{"n1"});
  EXPECT_EQ(sources[2].name, "wiki");
  EXPECT_EQ(TokenStore(sources[2].train.path).info().source, "wiki");
}

TEST(Prepare, GivesTheSameBytesForAnyThreads) {
  const ScratchDir dir;
  std::string input;
  for (int i = 0; i < 150; ++i) input += line(fmt::format("{} {}", i, std::string(50000, 'a')));
  test::write_bytes(dir.file("in.jsonl"), input);
  const auto run = [&](const std::string& name, int threads) {
    const auto source = prepare({.inputs = {dir.file("in.jsonl")},
                                 .output_dir = dir.file(name),
                                 .num_threads = threads})[0];
    return std::pair(texts(TokenStore(source.train.path)),
                     texts(TokenStore(source.validation.path)));
  };
  EXPECT_EQ(run("one", 1), run("three", 3));
}

TEST(Prepare, RefusesWhatItCannotUse) {
  const ScratchDir dir;
  test::write_bytes(dir.file("empty.jsonl"), line("") + "\n");
  test::write_bytes(dir.file("in.jsonl"), line("a") + line("b"));
  test::write_bytes(dir.file("odd.jsonl"), line("a", "../../etc"));
  test::write_bytes(dir.file("dots.jsonl"), line("a", ".."));
  const auto run = [&](PrepareOptions options) {
    return [&dir, options]() mutable {
      if (options.output_dir.empty()) options.output_dir = dir.file("out");
      prepare(options);
    };
  };
  expect_error<DataError>("no document has text, in ", run({.inputs = {dir.file("empty.jsonl")}}));
  EXPECT_FALSE(std::filesystem::exists(dir.file("out")));
  expect_error<DataError>("no document has text", run({}));
  expect_error<NoInputError>("none.jsonl", run({.inputs = {dir.file("none.jsonl")}}));
  expect_error<ConfigError>("source name '../../etc' cannot name a file",
                            run({.inputs = {dir.file("odd.jsonl")}, .split_sources = true}));
  expect_error<ConfigError>("source name '..' cannot name a file",
                            run({.inputs = {dir.file("dots.jsonl")}, .split_sources = true}));
  EXPECT_NO_THROW(run({.inputs = {dir.file("odd.jsonl")}, .output_dir = dir.file("plain")})());
  expect_error<ConfigError>("validation fraction 1 is outside [0, 1)",
                            run({.inputs = {dir.file("in.jsonl")}, .validation_fraction = 1.0}));
  run({.inputs = {dir.file("in.jsonl")}})();
  expect_error<CannotCreateError>("text.train.h5: exists already",
                                  run({.inputs = {dir.file("in.jsonl")}}));
  test::write_bytes(dir.file("file"), "");
  expect_error<CannotCreateError>(
      "cannot create the directory",
      run({.inputs = {dir.file("in.jsonl")}, .output_dir = dir.file("file/out")}));
}

}  // namespace
}  // namespace jamba

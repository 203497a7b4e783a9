#include "data/tokenizer.h"

#include <nlohmann/json.hpp>

#include "data/tokenizer_trainer.h"
#include "data/utf8.h"
#include "kernels/core/rng.h"
#include "tests/data/data_fixture.h"

namespace jamba {
namespace {

using test::expect_error;
using test::ScratchDir;

using Ids = std::vector<std::int32_t>;

/// Some made-up English: enough words for a vocabulary of a few hundred pieces.
std::string babble(std::uint64_t seed, int words) {
  static const std::vector<std::string> kSyllables = {"the", "ra", "in",  "ing", "tion", "con",
                                                      "ter", "al", "est", "qu",  "ick",  "ed"};
  const CounterRng rng(seed, "babble");
  std::string text;
  std::uint64_t draw = 0;
  for (int i = 0; i < words; ++i) {
    for (std::int64_t n = 1 + rng.below(draw++, 3); n > 0; --n) {
      text += kSyllables[static_cast<std::size_t>(rng.below(draw++, 12))];
    }
    text += i % 9 == 8 ? ".\n" : i % 31 == 30 ? "    " : " ";
    if (i % 17 == 0) text += "1984 ";
  }
  return text;
}

class SentencePiece : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream file(dir_.file("in.jsonl"));
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      file << nlohmann::json{{"text", babble(seed, 400)}}.dump() << "\n";
    }
    file.close();
    train("tok.model");
  }

  void train(const std::string& name, std::int64_t vocab_size = 400) {
    train_sentencepiece({.inputs = {dir_.file("in.jsonl")}, .vocab_size = vocab_size},
                        dir_.file(name));
  }

  std::unique_ptr<Tokenizer> load() const { return load_tokenizer(dir_.file("tok.model")); }

  ScratchDir dir_;
};

const std::vector<std::string> kTricky = {
    "",
    " ",
    "  leading and trailing  ",
    "one\ntwo\n\nthree\r\n\tfour",
    "\n",
    "a    b\t\tc",
    "digits 1234567890 3.14159",
    "<s> </s> <pad> <unk> <0x41> \xe2\x96\x85",
    "\xe2\x96\x81 the space mark \xe2\x96\x81\xe2\x96\x81 itself\xe2\x96\x81",
    "caf\xc3\xa9 na\xc3\xafve \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80\xf0\x9f\x8f\xbd",
    "\xef\xac\x81 ligature, \xe2\x84\xab ngstrom, e\xcc\x81 combining, \xc2\xa0 no-break",
    "\xef\xbb\xbf byte order mark, \xe2\x80\x8b zero width, \xe2\x80\xa8 line separator",
    std::string("null \0 byte", 11),
    "\xef\xbf\xbd replacement, \xef\xbf\xbe noncharacter, \xf4\x8f\xbf\xbf last",
};

/// A random valid UTF-8 text over all planes, heavy in spaces and line ends.
std::string random_text(std::uint64_t seed) {
  const CounterRng rng(seed, "utf8");
  std::string text;
  for (std::uint64_t i = 0; i < 60; ++i) {
    const std::vector<std::int64_t> tops = {0x80, 0x80, 0x800, 0x3000, 0x10000, 0x110000};
    const auto kind = static_cast<std::size_t>(rng.below(3 * i, 8));
    std::int64_t code = kind < 6 ? rng.below(3 * i + 1, tops[kind]) : kind == 6 ? ' ' : '\n';
    if (code >= 0xd800 && code <= 0xdfff) code = 0x2581;
    const auto put = [&](std::int64_t byte) { text.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | (code >> 6));
      put(0x80 | (code & 63));
    } else if (code < 0x10000) {
      put(0xe0 | (code >> 12));
      put(0x80 | ((code >> 6) & 63));
      put(0x80 | (code & 63));
    } else {
      put(0xf0 | (code >> 18));
      put(0x80 | ((code >> 12) & 63));
      put(0x80 | ((code >> 6) & 63));
      put(0x80 | (code & 63));
    }
  }
  return text;
}

TEST_F(SentencePiece, GivesBackEveryTextExactly) {
  const auto tokenizer = load();
  for (const std::string& text : kTricky) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const std::string text = random_text(seed);
    ASSERT_EQ(valid_utf8_prefix(text), text.size());
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << "seed " << seed;
  }
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(babble(99, 500))), babble(99, 500));
}

TEST_F(SentencePiece, HasTheIdsThatTheModelExpects) {
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->vocab_size(), 400);
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->decode(Ids{1, 2, 0}), "");
  EXPECT_EQ(tokenizer->encode("\n"), Ids{4 + '\n'});
  for (const std::int32_t id : tokenizer->encode("<s>the rain</s> 1 \xe4\xb8\xad")) {
    EXPECT_TRUE(id >= 4 && id < 400);
  }
  EXPECT_THROW(tokenizer->decode(Ids{400}), LogicError);
  EXPECT_THROW(tokenizer->decode(Ids{-1}), LogicError);
}

TEST_F(SentencePiece, CompressesTextAndSplitsDigits) {
  const auto tokenizer = load();
  const std::string text = babble(50, 300);
  EXPECT_LT(tokenizer->encode(text).size() * 2, text.size());
  EXPECT_EQ(tokenizer->encode("1984").size(), 4u);
}

TEST_F(SentencePiece, TrainsTheSameModelTwice) {
  train("again.model");
  EXPECT_EQ(test::read_bytes(dir_.file("again.model")), test::read_bytes(dir_.file("tok.model")));
  EXPECT_EQ(load()->hash(), load_tokenizer(dir_.file("again.model"))->hash());
  EXPECT_EQ(load()->hash().size(), 16u);
  train("small.model", 350);
  EXPECT_NE(load()->hash(), load_tokenizer(dir_.file("small.model"))->hash());
}

TEST_F(SentencePiece, TrainsOnAShareOfLargeInputs) {
  const std::vector<std::string> inputs = {dir_.file("in.jsonl")};
  train_sentencepiece({.inputs = inputs, .vocab_size = 350, .max_bytes = 20000},
                      dir_.file("share.model"));
  train("whole.model", 350);
  EXPECT_NE(test::read_bytes(dir_.file("share.model")), test::read_bytes(dir_.file("whole.model")));
}

TEST_F(SentencePiece, SaysWhyItCannotTrain) {
  expect_error<CannotCreateError>("tok.model: exists already", [&] { train("tok.model"); });
  expect_error<CannotCreateError>("cannot create", [&] { train("missing/tok.model"); });
  expect_error<ConfigError>("vocabulary size 299 is outside [300, 1000000]",
                            [&] { train("x.model", 299); });
  expect_error<ConfigError>("Vocabulary size too high (90000)", [&] { train("x.model", 90000); });
  test::write_bytes(dir_.file("empty.jsonl"), "{\"text\": \"\\n\\n\"}\n");
  expect_error<DataError>("the inputs hold no text", [&] {
    train_sentencepiece({.inputs = {dir_.file("empty.jsonl")}, .vocab_size = 400},
                        dir_.file("x.model"));
  });
  expect_error<NoInputError>("none.jsonl", [&] {
    train_sentencepiece({.inputs = {dir_.file("none.jsonl")}, .vocab_size = 400},
                        dir_.file("x.model"));
  });
  EXPECT_FALSE(std::filesystem::exists(dir_.file("x.model")));
  EXPECT_FALSE(std::filesystem::exists(dir_.file("x.model.partial")));
}

TEST_F(SentencePiece, RefusesFilesThatAreNoModel) {
  expect_error<NoInputError>("none.model", [&] { load_tokenizer(dir_.file("none.model")); });
  const std::string whole = test::read_bytes(dir_.file("tok.model"));
  for (const std::string& bytes :
       {std::string(), std::string("not a model"), std::string(3000, '\xff'),
        whole.substr(0, whole.size() / 2), whole.substr(0, 100)}) {
    test::write_bytes(dir_.file("bad.model"), bytes);
    expect_error<DataError>("bad.model: not a sentencepiece model",
                            [&] { load_tokenizer(dir_.file("bad.model")); });
  }
}

TEST(ByteTokenizer, GivesBackEveryByte) {
  const auto tokenizer = load_tokenizer("bytes");
  EXPECT_EQ(tokenizer->vocab_size(), 259);
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->hash().size(), 16u);
  EXPECT_EQ(tokenizer->encode("A\n"), (Ids{3 + 'A', 3 + '\n'}));
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(all)), all);
  EXPECT_EQ(tokenizer->decode(Ids{1, 3 + 'A', 0, 2}), "A");
  EXPECT_THROW(tokenizer->decode(Ids{259}), LogicError);
}

TEST(Utf8, FindsTheFirstBadCharacter) {
  EXPECT_EQ(valid_utf8_prefix("plain"), 5u);
  EXPECT_EQ(valid_utf8_prefix("ab\xff"), 2u);
  EXPECT_EQ(valid_utf8_prefix("ab\xc3"), 2u);          // cut short
  EXPECT_EQ(valid_utf8_prefix("ab\xc0\x80"), 2u);      // overlong
  EXPECT_EQ(valid_utf8_prefix("ab\xe0\x80\x80"), 2u);  // overlong
  EXPECT_EQ(valid_utf8_prefix("ab\xed\xa0\x80"), 2u);  // surrogate
  EXPECT_EQ(valid_utf8_prefix("ab\xf4\x90\x80\x80"), 2u);
  EXPECT_EQ(valid_utf8_prefix("\xf4\x8f\xbf\xbf"), 4u);
}

}  // namespace
}  // namespace jamba

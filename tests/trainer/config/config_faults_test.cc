// Every kind of mistake in a config: the words, the place, the exit code.

#include <gmock/gmock.h>

#include "tests/trainer/config/config_files.h"

namespace jamba {
namespace {

using test::ConfigFiles;
using test::kSoundRun;
using ::testing::HasSubstr;
using ::testing::Not;

/// A line of kSoundRun replaced, or with an empty `line` the text appended.
std::string changed(const std::string& line, const std::string& by) {
  std::string text = kSoundRun;
  if (line.empty()) return text + by;
  const std::size_t at = text.find(line);
  EXPECT_NE(at, std::string::npos) << line;
  return text.replace(at, line.size(), by);
}

TEST_F(ConfigFiles, TheSoundRunIsSound) {
  const RunConfig run = load(kSoundRun);
  EXPECT_EQ(run.run_dir, "runs/x");
  EXPECT_EQ(run.model.num_hidden_layers, 8);
  EXPECT_EQ(run.model.num_experts, 16);  // a default
  ASSERT_EQ(run.data.sources.size(), 1u);
  EXPECT_EQ(run.data.sources[0].train, "a.h5");
  EXPECT_EQ(run.data.sources[0].weight, 1.0);
  EXPECT_EQ(run.train.steps, 100);
}

struct Mistake {
  const char* name;
  std::string line;  // of kSoundRun, to be replaced; empty: append
  std::string by;
  std::string message;  // the whole message, one fault
};

class OneMistake : public ConfigFiles, public ::testing::WithParamInterface<Mistake> {};

TEST_P(OneMistake, IsOneLineWithPlaceAndWords) {
  EXPECT_EQ(faults(changed(GetParam().line, GetParam().by)), GetParam().message);
}

const Mistake kKeyMistakes[] = {
    {"UnknownKey", "", "optimizer:\n  lerning_rate: 1e-3\n",
     "run.yaml:16:3: optimizer.lerning_rate: unknown key; did you mean 'lr'?"},
    {"AbbreviatedKey", "  seq_len: 16", "  seq_len: 16\n  reset_documents: false",
     "run.yaml:12:3: data.reset_documents: unknown key; did you mean 'reset_at_documents'?"},
    {"KeyInTheWrongSection", "  steps: 100", "  steps: 100\n  lr: 1e-3",
     "run.yaml:15:3: train.lr: unknown key; did you mean 'optimizer.lr'?"},
    {"UnknownSection", "", "optimiser:\n  lr: 1e-3\n",
     "run.yaml:15:1: optimiser: unknown key; did you mean 'optimizer'?"},
    {"NothingNear", "", "banana: 3\n", "run.yaml:15:1: banana: unknown key"},
    {"UnknownKeyOfASource", "{name: a, train: a.h5}", "{name: a, train: a.h5, wieght: 2}",
     "run.yaml:12:36: data.sources.0.wieght: unknown key; did you mean 'weight'?"},
    {"DuplicateKey", "  seq_len: 16", "  seq_len: 16\n  seq_len: 32",
     "run.yaml:12:3: data.seq_len: set twice, first at 11:3; keep one"},
    {"DuplicateSection", "", "train:\n  steps: 3\n",
     "run.yaml:15:1: train: set twice, first at 13:1; keep one"},
    {"MissingKey", "  seq_len: 16\n", "",
     "run.yaml:9:1: data.seq_len: is missing: Tokens of a training sequence."},
    {"MissingSection", "train:\n  steps: 100\n", "",
     "run.yaml:1:1: train.steps: is missing: Optimizer steps of the run."},
    {"EmptySection", "train:\n  steps: 100\n", "train:\n",
     "run.yaml:13:1: train.steps: is missing: Optimizer steps of the run."},
    {"MissingName", "{name: a, train: a.h5}", "{train: a.h5}",
     "run.yaml:12:13: data.sources.0.name: is missing: Names the source in logs: letters, "
     "digits, '-' and '_'."},
};
INSTANTIATE_TEST_SUITE_P(Keys, OneMistake, ::testing::ValuesIn(kKeyMistakes),
                         [](const auto& one) { return one.param.name; });

const Mistake kValueMistakes[] = {
    {"WordForInteger", "steps: 100", "steps: abc",
     "run.yaml:14:10: train.steps: expected an integer, got 'abc'"},
    {"FractionForInteger", "steps: 100", "steps: 1.5",
     "run.yaml:14:10: train.steps: expected an integer, got '1.5', a fraction"},
    {"Octal", "steps: 100", "steps: 010",
     "run.yaml:14:10: train.steps: '010' has a leading zero, which some readers take for octal; "
     "write 10"},
    {"QuotedNumber", "steps: 100", "steps: \"12\"",
     "run.yaml:14:10: train.steps: expected an integer, got the quoted text '12'; remove the "
     "quotes"},
    {"NothingForInteger", "steps: 100",
     "steps:", "run.yaml:14:3: train.steps: expected an integer, got nothing"},
    {"ListForInteger", "steps: 100", "steps: [1, 2]",
     "run.yaml:14:10: train.steps: expected an integer, got a list"},
    {"SectionForInteger", "steps: 100", "steps: {every: 2}",
     "run.yaml:14:10: train.steps: expected an integer, got a section of keys"},
    {"BeyondSixtyFourBits", "steps: 100", "steps: 99999999999999999999",
     "run.yaml:14:10: train.steps: '99999999999999999999' is too large for a 64-bit integer"},
    {"NotANumber", "", "optimizer: {lr: .nan}\n",
     "run.yaml:15:17: optimizer.lr: must be a finite number, got '.nan'"},
    {"Infinity", "", "optimizer: {lr: .inf}\n",
     "run.yaml:15:17: optimizer.lr: must be a finite number, got '.inf'"},
    {"WordForNumber", "", "optimizer: {lr: high}\n",
     "run.yaml:15:17: optimizer.lr: expected a number, got 'high'"},
    {"QuotedReal", "", "optimizer: {lr: '1e-3'}\n",
     "run.yaml:15:17: optimizer.lr: expected a number, got the quoted text '1e-3'; remove the "
     "quotes"},
    {"YesForTrue", "", "log: {tensorboard: yes}\n",
     "run.yaml:15:20: log.tensorboard: expected true or false, got 'yes'"},
    {"UnknownChoice", "", "optimizer: {schedule: cosin}\n",
     "run.yaml:15:23: optimizer.schedule: expected one of constant, cosine, wsd, got 'cosin'; did "
     "you mean 'cosine'?"},
    {"FarChoice", "", "optimizer: {schedule: banana}\n",
     "run.yaml:15:23: optimizer.schedule: expected one of constant, cosine, wsd, got 'banana'"},
    {"ListForText", "run_dir: runs/x", "run_dir: [a]",
     "run.yaml:1:10: run_dir: expected text, got a list"},
    {"EmptyText", "run_dir: runs/x", "run_dir: ''", "run.yaml:1:10: run_dir: must not be empty"},
    {"ScalarForSection", "", "optimizer: fast\n",
     "run.yaml:15:12: optimizer: expected a section of keys, got 'fast'"},
    {"ScalarForList", "sources: [{name: a, train: a.h5}]", "sources: a.h5",
     "run.yaml:12:12: data.sources: expected a list, got 'a.h5'"},
    {"ScalarForItem", "[{name: a, train: a.h5}]", "[a.h5]",
     "run.yaml:12:13: data.sources.0: expected a section of keys, got 'a.h5'"},
    {"EmptyList", "[{name: a, train: a.h5}]", "[]",
     "run.yaml:12:3: data.sources: must list at least one source"},
};
INSTANTIATE_TEST_SUITE_P(Values, OneMistake, ::testing::ValuesIn(kValueMistakes),
                         [](const auto& one) { return one.param.name; });

const Mistake kRuleMistakes[] = {
    {"Range", "steps: 100", "steps: 0", "run.yaml:14:3: train.steps: must be at least 1, got 0"},
    {"RealRange", "", "optimizer: {beta1: 1.0}\n",
     "run.yaml:15:13: optimizer.beta1: must be at least 0 and below 1, got 1"},
    {"ModelRange", "vocab_size: 64", "vocab_size: 99999999999",
     "run.yaml:3:3: model.vocab_size: must be from 1 to 2147483648, got 99999999999"},
    {"KvHeads", "num_key_value_heads: 2", "num_key_value_heads: 3",
     "run.yaml:8:3: model.num_key_value_heads: 3 does not divide num_attention_heads (4)"},
    {"TopK", "num_key_value_heads: 2", "num_key_value_heads: 2\n  num_experts_per_tok: 17",
     "run.yaml:9:3: model.num_experts_per_tok: must be from 1 to num_experts (16), got 17"},
    {"Offset", "num_key_value_heads: 2", "num_key_value_heads: 2\n  attn_layer_offset: 8",
     "run.yaml:9:3: model.attn_layer_offset: must be at least 0 and below attn_layer_period (8), "
     "got 8"},
    {"PatternLength", "num_key_value_heads: 2", "num_key_value_heads: 2\n  layer_pattern: M M A",
     "run.yaml:9:3: model.layer_pattern: names 3 layers, which do not divide num_hidden_layers "
     "(8)"},
    {"RuleOverAMissingKey", "  num_key_value_heads: 2\n", "",
     "run.yaml:2:1: model.num_key_value_heads: must be from 1 to 4096, got 0"},
    {"BatchSplit", "steps: 100", "steps: 100\n  micro_batch_size: 4\n  global_batch_size: 10",
     "run.yaml:16:3: train.global_batch_size: 10 is no multiple of train.micro_batch_size x "
     "data-parallel ranks (4 x 1 = 4); nearest: 8 or 12"},
    {"BatchBelowMicro", "steps: 100", "steps: 100\n  micro_batch_size: 4\n  global_batch_size: 2",
     "run.yaml:16:3: train.global_batch_size: must be at least train.micro_batch_size (4), got 2"},
    {"Warmup", "", "optimizer: {warmup_steps: 101}\n",
     "run.yaml:15:13: optimizer.warmup_steps: must be at most train.steps (100), got 101"},
    {"WarmupAndDecay", "", "optimizer: {schedule: wsd, warmup_steps: 50, decay_steps: 51}\n",
     "run.yaml:15:46: optimizer.decay_steps: optimizer.warmup_steps + decay_steps (50 + 51) must "
     "be at most train.steps (100)"},
    {"DefaultDecay", "", "optimizer: {schedule: wsd, warmup_steps: 91}\n",
     "run.yaml:15:1: optimizer.decay_steps: optimizer.warmup_steps + decay_steps (91 + 10) must "
     "be at most train.steps (100)"},
    {"MinLr", "", "optimizer: {lr: 1e-4, min_lr: 1e-3}\n",
     "run.yaml:15:23: optimizer.min_lr: must be at most optimizer.lr (0.0001), got 0.001"},
    {"SequenceLength", "seq_len: 16", "seq_len: 0",
     "run.yaml:11:3: data.seq_len: must be at least 1, got 0"},
    {"NegativeWeight", "train: a.h5", "train: a.h5, weight: -1",
     "run.yaml:12:36: data.sources.0.weight: must be at least 0, got -1"},
    {"NoWeight", "train: a.h5", "train: a.h5, validation: v.h5, weight: 0",
     "run.yaml:12:3: data.sources: no source has a weight above 0: nothing to train on"},
    {"SameNames", "[{name: a, train: a.h5}]", "[{name: a, train: a.h5}, {name: a, train: b.h5}]",
     "run.yaml:12:38: data.sources.1.name: 'a' names two sources; names must differ"},
    {"NameOfASource", "name: a,", "name: a/b,",
     "run.yaml:12:14: data.sources.0.name: must be letters, digits, '-' and '_', got 'a/b'"},
    {"NoTrainingStore", ", train: a.h5", "",
     "run.yaml:12:13: data.sources.0.train: must name a token store, as weight is not 0"},
    {"NoRanks", "", "parallel: {ep: 0}\n",
     "run.yaml:15:12: parallel.ep: must be from 1 to 1048576, got 0"},
};
INSTANTIATE_TEST_SUITE_P(Rules, OneMistake, ::testing::ValuesIn(kRuleMistakes),
                         [](const auto& one) { return one.param.name; });

const Mistake kYamlMistakes[] = {
    {"Anchor", "steps: 100", "steps: &n 100",
     "run.yaml:14:10: train.steps: anchors (&name) are not supported; write the value out"},
    {"Tag", "steps: 100", "steps: !!int 100",
     "run.yaml:14:10: train.steps: tags ('tag:yaml.org,2002:int') are not supported; remove it"},
    {"MergeKey", "  steps: 100", "  steps: 100\n  <<: {seed: 3}",
     "run.yaml:15:3: train: merge keys (<<) are not supported; write the keys out"},
    {"ListForKey", "  steps: 100", "  steps: 100\n  [1, 2]: 3",
     "run.yaml:15:3: train: a key must be a plain word, not a list or a section; is a "
     "bracket left open?"},
    {"EmptyKey", "  steps: 100", "  steps: 100\n  '': 3",
     "run.yaml:15:3: train: a key must be a plain word"},
    {"Syntax", "steps: 100", "steps: [1, 2",
     "run.yaml:15:1: is not valid YAML: end of sequence flow not found"},
    {"TwoDocuments", "", "---\nsteps: 3\n",
     "run.yaml:16:1: holds a second document (---); keep one"},
    {"NotUtf8", "runs/x", "runs/\xff", "run.yaml:1:1: is not UTF-8 text"},
};
INSTANTIATE_TEST_SUITE_P(Yaml, OneMistake, ::testing::ValuesIn(kYamlMistakes),
                         [](const auto& one) { return one.param.name; });

TEST_F(ConfigFiles, AliasesAreRefusedBeforeTheyMultiply) {
  std::string bomb = "a: &a [x, x, x]\n";
  for (char c = 'b'; c <= 'i'; ++c) {
    const std::string last(1, static_cast<char>(c - 1));
    bomb += std::string(1, c) + ": &" + c + " [*" + last + ", *" + last + ", *" + last + "]\n";
  }
  EXPECT_THAT(faults(bomb), HasSubstr("run.yaml:2:8: b.0: aliases (*name) are not supported"));
}

TEST_F(ConfigFiles, AnAliasOfItselfIsRefused) {
  EXPECT_THAT(faults("a: &x [1, *x]\n"), HasSubstr("run.yaml:1:11: a.1: aliases (*name)"));
}

TEST_F(ConfigFiles, DeepNestingIsRefused) {
  const auto nested = [](const std::string& open, const std::string& close, int levels) {
    std::string text;
    for (int i = 0; i < levels; ++i) text += open;
    for (int i = 0; i < levels; ++i) text += close;
    return text;
  };
  const std::string fault = "nested more than 32 levels deep";
  EXPECT_THAT(faults("a: " + nested("[", "]", 32)), HasSubstr(fault));
  EXPECT_THAT(faults("a: " + nested("[", "]", 31)), Not(HasSubstr(fault)));
  EXPECT_THAT(faults("a: " + nested("{a: ", "}", 32)), HasSubstr(fault));
  EXPECT_THAT(faults(nested("- ", "", 100000)), HasSubstr(fault));
  EXPECT_NE(faults(nested("[", "", 100000)), "");
  EXPECT_NE(faults(nested("? ", "", 100000)), "");
}

TEST_F(ConfigFiles, AFileAboveOneMebibyteIsRefused) {
  const std::string filler(1 << 20, '#');
  EXPECT_EQ(faults(filler), "run.yaml: holds no keys");
  EXPECT_EQ(faults(filler + "#"), "run.yaml: is larger than 1 MiB, too large for a config");
}

TEST_F(ConfigFiles, AnEmptyFileIsRefused) {
  EXPECT_EQ(faults(""), "run.yaml: holds no keys");
  EXPECT_EQ(faults("# nothing\n"), "run.yaml: holds no keys");
  EXPECT_THAT(faults("{}\n"), HasSubstr("model.vocab_size: is missing"));
}

TEST_F(ConfigFiles, AFileThatIsNoSectionIsRefused) {
  EXPECT_EQ(faults("steps\n"), "run.yaml:1:1: expected a section of keys, got 'steps'");
  EXPECT_EQ(faults("- steps\n", {"train.steps=3"}),
            "run.yaml:1:1: expected a section of keys, got a list");
}

TEST_F(ConfigFiles, AMissingFileIsNoInput) {
  for (const std::filesystem::path& path : {directory_ / "none.yaml", directory_}) {
    try {
      load_run_config(path, {});
      FAIL() << path;
    } catch (const NoInputError& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::no_input);
      EXPECT_THAT(error.what(), HasSubstr(path.string() + ": no such config file"));
    }
  }
}

TEST_F(ConfigFiles, EveryFaultIsReportedAtOnceInTheOrderOfTheFile) {
  const std::string text =
      "run_dir: runs/x\n"
      "model: {vocab_size: 64, hidden_size: wide, intermediate_size: 48, num_hidden_layers: 8,\n"
      "        num_attention_heads: 4, num_key_value_heads: 3}\n"
      "data:\n"
      "  tokenizer: bytes\n"
      "  seq_length: 16\n"
      "  sources: [{name: a, train: a.h5}]\n"
      "train:\n"
      "  steps: 010\n"
      "  steps: 3\n"
      "optimizer:\n"
      "  beta2: 2\n";
  EXPECT_EQ(faults(text, {"train.seed=-1"}),
            "run.yaml:2:38: model.hidden_size: expected an integer, got 'wide'\n"
            "run.yaml:3:33: model.num_key_value_heads: 3 does not divide num_attention_heads (4)\n"
            "run.yaml:4:1: data.seq_len: is missing: Tokens of a training sequence.\n"
            "run.yaml:6:3: data.seq_length: unknown key; did you mean 'seq_len'?\n"
            "run.yaml:9:10: train.steps: '010' has a leading zero, which some readers take for "
            "octal; write 10\n"
            "run.yaml:10:3: train.steps: set twice, first at 9:3; keep one\n"
            "run.yaml:12:3: optimizer.beta2: must be at least 0 and below 1, got 2\n"
            "override: train.seed: must be at least 0, got -1");
}

TEST_F(ConfigFiles, ARuleOverAValueThatCouldNotBeReadIsSilent) {
  const std::string text = changed("steps: 100", "steps: abc") + "optimizer: {warmup_steps: 50}\n";
  EXPECT_EQ(faults(text), "run.yaml:14:10: train.steps: expected an integer, got 'abc'");
}

TEST_F(ConfigFiles, AFloodOfFaultsIsCutShort) {
  std::string text = kSoundRun;
  for (int i = 0; i < 60; ++i) text += "banana_" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(faults(text), HasSubstr("banana_49"));
  EXPECT_THAT(faults(text), Not(HasSubstr("banana_50")));
  EXPECT_THAT(faults(text), HasSubstr("\nand 10 more"));
}

TEST_F(ConfigFiles, TheBatchMustSplitOverTheRanks) {
  const std::string text = changed("steps: 100",
                                   "steps: 100\n  micro_batch_size: 2\n"
                                   "  global_batch_size: 12");
  EXPECT_EQ(faults(text, {}, 3), "");
  EXPECT_EQ(faults(text, {}, 4),
            "run.yaml:16:3: train.global_batch_size: 12 is no multiple of train.micro_batch_size x "
            "data-parallel ranks (2 x 4 = 8); nearest: 8 or 16");
  EXPECT_EQ(faults(text, {}, 8),
            "run.yaml:16:3: train.global_batch_size: 12 is no multiple of train.micro_batch_size x "
            "data-parallel ranks (2 x 8 = 16); nearest: 16");
}

}  // namespace
}  // namespace jamba

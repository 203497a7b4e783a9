// Includes, overrides, and models on their own.

#include <gmock/gmock.h>

#include "tests/trainer/config/config_files.h"

namespace jamba {
namespace {

using test::ConfigFiles;
using test::kSoundRun;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

using ConfigSources = ConfigFiles;

TEST_F(ConfigSources, IncludesAreRelativeToTheIncludingFile) {
  write("models/m.yaml", "include: base/b.yaml\nmodel: {vocab_size: 65}\n");
  write("models/base/b.yaml", "model: {vocab_size: 99, mamba_d_state: 8}\n");
  const auto run = write("runs/r.yaml", "include: ../models/m.yaml\n" + kSoundRun);
  const RunConfig config = load_run_config(run, {});
  EXPECT_EQ(config.model.vocab_size, 64);    // the including file wins
  EXPECT_EQ(config.model.mamba_d_state, 8);  // two includes down
}

TEST_F(ConfigSources, LaterIncludesWin) {
  write("a.yaml", "train: {seed: 5, threads: 7}\n");
  write("b.yaml", "train: {seed: 6}\n");
  const RunConfig config = load("include: [a.yaml, b.yaml]\n" + kSoundRun);
  EXPECT_EQ(config.train.seed, 6u);
  EXPECT_EQ(config.train.threads, 7);
}

TEST_F(ConfigSources, ListsAreReplacedNotJoined) {
  write("a.yaml", "data: {sources: [{name: x, train: x.h5}, {name: y, train: y.h5}]}\n");
  EXPECT_EQ(load("include: a.yaml\n" + kSoundRun).data.sources.size(), 1u);
}

TEST_F(ConfigSources, AnEmptySectionDoesNotUndoAnInclude) {
  write("a.yaml", "eval: {every: 5}\n");
  EXPECT_EQ(load("include: a.yaml\neval:\n" + kSoundRun).eval.every, 5);
}

TEST_F(ConfigSources, FaultsNameTheFileTheyStandIn) {
  write("a.yaml", "train:\n  sed: 5\n");
  EXPECT_EQ(faults("include: a.yaml\n" + kSoundRun),
            "a.yaml:2:3: train.sed: unknown key; did you mean 'seed'?");
}

TEST_F(ConfigSources, FilesThatIncludeEachOtherAreRefused) {
  write("a.yaml", "include: [run.yaml]\n");
  EXPECT_EQ(faults("include: a.yaml\n"),
            "a.yaml:1:11: include: files include each other: run.yaml -> a.yaml -> run.yaml");
  EXPECT_EQ(faults("include: ./run.yaml\n"),
            "run.yaml:1:10: include: files include each other: run.yaml -> run.yaml");
}

TEST_F(ConfigSources, AMissingIncludeIsAFaultOfTheConfig) {
  EXPECT_EQ(faults("include: [none.yaml, 'also/none.yaml']\n" + kSoundRun),
            "run.yaml:1:11: include: cannot read 'none.yaml'; paths are relative to the including "
            "file\n"
            "run.yaml:1:22: include: cannot read 'also/none.yaml'; paths are relative to the "
            "including file");
}

TEST_F(ConfigSources, AnIncludeOfAnotherTypeIsRefused) {
  EXPECT_EQ(faults("include: {a: b}\n" + kSoundRun),
            "run.yaml:1:1: include: expected a file name or a list of them");
  EXPECT_EQ(faults("include:\n" + kSoundRun),
            "run.yaml:1:1: include: expected a file name or a list of them");
}

TEST_F(ConfigSources, OverridesWinOverFiles) {
  const RunConfig config =
      load(kSoundRun, {"train.steps=2k", "optimizer.lr=5e-4", "train.dtype=bfloat16",
                       "data.sources.0.weight=2.5", "model.rope=true", "train.steps=3k"});
  EXPECT_EQ(config.train.steps, 3000);  // the last of two
  EXPECT_EQ(config.optimizer.lr, 5e-4);
  EXPECT_EQ(config.train.dtype, DType::bf16);
  EXPECT_EQ(config.data.sources[0].weight, 2.5);
  EXPECT_TRUE(config.model.rope);
}

TEST_F(ConfigSources, OverridesSetWholeSectionsAndAddItems) {
  const RunConfig config =
      load(kSoundRun, {"eval={every: 3, max_tokens: 7}", "data.sources.1={name: b, train: b.h5}"});
  EXPECT_EQ(config.eval.every, 3);
  ASSERT_EQ(config.data.sources.size(), 2u);
  EXPECT_EQ(config.data.sources[1].name, "b");
}

TEST_F(ConfigSources, OverridesAreCheckedLikeFiles) {
  EXPECT_EQ(faults(kSoundRun, {"train.steps=abc"}),
            "override: train.steps: expected an integer, got 'abc'");
  EXPECT_EQ(faults(kSoundRun, {"train.stps=3"}),
            "override: train.stps: unknown key; did you mean 'steps'?");
  EXPECT_EQ(faults(kSoundRun, {"train.steps="}),
            "override: train.steps: expected an integer, got nothing");
  EXPECT_EQ(faults(kSoundRun, {"train.steps.more=3"}),
            "override: train.steps: expected an integer, got a section of keys");
  EXPECT_EQ(faults(kSoundRun, {"optimizer.warmup_steps=101"}),
            "override: optimizer.warmup_steps: must be at most train.steps (100), got 101");
  EXPECT_EQ(faults(kSoundRun, {"data.sources.2.weight=1"}),
            "override: data.sources: expected a list, got a section of keys");
  EXPECT_EQ(faults(kSoundRun, {"train.steps=[1"}),
            "override: train.steps: a key must be a plain word, not a list or a section; is a "
            "bracket left open?");
  EXPECT_EQ(faults(kSoundRun, {"train.steps='3"}),
            "override: train.steps: is not valid YAML: illegal EOF in scalar");
  EXPECT_EQ(faults(kSoundRun, {"train.steps=&a 3"}),
            "override: train.steps: anchors (&name) are not supported; write the value out");
  EXPECT_EQ(faults(kSoundRun, {"include=a.yaml"}), "override: include: unknown key");
}

TEST_F(ConfigSources, AnOverrideOfAnotherFormIsRefused) {
  for (const char* setting : {"train.steps", "=3", ".steps=3", "train.=3", "train..steps=3", ""}) {
    EXPECT_EQ(faults(kSoundRun, {setting}), std::string("override: '") + setting +
                                                "': write key.path=value, as in train.steps=100");
  }
}

TEST_F(ConfigSources, AMissingKeyStandsAtItsSectionEvenWithOverridesThere) {
  std::string text = kSoundRun;
  text.erase(text.find("  seq_len: 16\n"), 14);
  EXPECT_EQ(faults(text, {"data.reset_at_documents=false"}),
            "run.yaml:9:1: data.seq_len: is missing: Tokens of a training sequence.");
}

TEST_F(ConfigSources, OriginsTellWhereEachKeyStands) {
  write("a.yaml", "eval:\n  every: 5\nmodel:\n  vocab_size: 9\n");
  const auto path = write("run.yaml", "include: a.yaml\n" + kSoundRun);
  ConfigOrigins origins;
  load_run_config(path, std::vector<std::string>{"train.seed=3", "data.seq_len=8"}, 0, &origins);
  EXPECT_EQ(without_directory(origins.at("train.steps")), "run.yaml:15:3");
  EXPECT_EQ(without_directory(origins.at("eval.every")), "a.yaml:2:3");
  EXPECT_EQ(without_directory(origins.at("model.vocab_size")), "run.yaml:4:3");  // the winner
  EXPECT_EQ(origins.at("train.seed"), "override");
  EXPECT_EQ(origins.at("data.seq_len"), "override");  // which the file has too
  EXPECT_EQ(origins.count("train.threads"), 0u);
}

TEST_F(ConfigSources, AModelNeedsNoRun) {
  const auto path = write("m.yaml",
                          "model: {vocab_size: 64, hidden_size: 32, intermediate_size: 48,\n"
                          "        num_hidden_layers: 8, layer_pattern: M}\n");
  EXPECT_EQ(load_model_config(path).layer_map(), "MMMMMMMM");
  EXPECT_THAT(faults_of(path), HasSubstr("train.steps: is missing"));
}

TEST_F(ConfigSources, AModelHasTheFaultsOfItsOwn) {
  const auto path = write("m.yaml", "model: {vocab_size: 64, hidden_size: 32, num_experts: 0}\n");
  try {
    load_model_config(path);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(without_directory(error.what()),
              "m.yaml:1:1: model.intermediate_size: is missing: Width of a dense SwiGLU "
              "feed-forward.\n"
              "m.yaml:1:1: model.num_hidden_layers: is missing: Layers; each is a mixer and a "
              "feed-forward.\n"
              "m.yaml:1:1: model.num_attention_heads: must be from 1 to 4096, got 0\n"
              "m.yaml:1:1: model.num_key_value_heads: must be from 1 to 4096, got 0\n"
              "m.yaml:1:42: model.num_experts: must be from 1 to 4096, got 0");
  }
}

TEST_F(ConfigSources, OverridesGoOnTopOfAnyConfig) {
  RunConfig base;  // no run: the keys that one needs are missing
  base.model = load(kSoundRun).model;
  base.train.seed = 7;
  RunConfig want = base;
  want.parallel.tp = 2;
  want.parallel.pp_layers = "5 3";
  want.parallel.deterministic = Deterministic::tree;
  want.train.dtype = DType::bf16;
  const std::vector<std::string> settings = {"parallel.tp=2", "parallel.pp_layers=5 3",
                                             "parallel.deterministic=tree", "train.dtype=bfloat16"};
  EXPECT_EQ(to_json(with_overrides(base, settings)), to_json(want));
  EXPECT_EQ(to_json(with_overrides(base, {})), to_json(base));
}

TEST_F(ConfigSources, OverridesOfAConfigHaveTheirOwnFaults) {
  RunConfig base;
  base.model = load(kSoundRun).model;
  const auto words = [&](const std::vector<std::string>& settings) -> std::string {
    try {
      with_overrides(base, settings);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return {};
  };
  EXPECT_EQ(words({"parallel.tp=two"}), "override: parallel.tp: expected an integer, got 'two'");
  EXPECT_EQ(words({"parallel.tp=0", "parallel.zero=4"}),
            "override: parallel.tp: must be from 1 to 1048576, got 0\n"
            "override: parallel.zero: must be from 0 to 3, got 4");
  EXPECT_EQ(words({"train.steps=-1"}), "override: train.steps: must be at least 1, got -1");
  EXPECT_EQ(words({"parallel.tpp=2"}), "override: parallel.tpp: unknown key; did you mean 'tp'?");
  EXPECT_EQ(words({"model.num_key_value_heads=3"}),
            "override: model.num_key_value_heads: 3 does not divide num_attention_heads (4)");
  EXPECT_EQ(words({"parallel.tp"}),
            "override: 'parallel.tp': write key.path=value, as in train.steps=100");
}

}  // namespace
}  // namespace jamba

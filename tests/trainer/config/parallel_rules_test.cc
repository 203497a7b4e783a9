// Meshes, batches and layer splits that do not fit a run: the words and what would do.

#include <gmock/gmock.h>

#include "tests/trainer/config/config_files.h"
#include "trainer/parallel_rules.h"

namespace jamba {
namespace {

using test::ConfigFiles;
using test::kSoundRun;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// What overrides of the sound run (8 layers with both mixers, 4 heads, 2 key and value heads, 16
/// experts, 16 tokens a sequence) do on some number of ranks. No message: they are sound.
struct Setting {
  const char* name;
  int world_size;
  std::vector<std::string> overrides;
  std::string message;
};

class ParallelRules : public ConfigFiles, public ::testing::WithParamInterface<Setting> {};

TEST_P(ParallelRules, TellsWhatIsWrongAndWhatWouldDo) {
  const Setting& s = GetParam();
  EXPECT_EQ(faults(kSoundRun, s.overrides, s.world_size), s.message);
}

auto name_of(const ::testing::TestParamInfo<Setting>& one) { return std::string(one.param.name); }

const Setting kKeys[] = {
    {"AllKeys",
     2,
     {"parallel={zero: 3, sequence_parallel: false, timeout_seconds: 0, check_collectives: true}",
      "model.expert_capacity_factor=1.25", "model.force_balanced_routing=true"},
     ""},
    {"ZeroStage", 1, {"parallel.zero=4"}, "override: parallel.zero: must be from 0 to 3, got 4"},
    {"NegativeZeroStage",
     1,
     {"parallel.zero=-1"},
     "override: parallel.zero: must be from 0 to 3, got -1"},
    {"NoChunks",
     1,
     {"parallel.pp_chunks=0"},
     "override: parallel.pp_chunks: must be from 1 to 1048576, got 0"},
    {"Timeout",
     1,
     {"parallel.timeout_seconds=-1"},
     "override: parallel.timeout_seconds: must be at least 0, got -1"},
    {"Determinism",
     1,
     {"parallel.deterministic=trees"},
     "override: parallel.deterministic: expected one of mesh, tree, got 'trees'; did you mean "
     "'tree'?"},
    {"SequenceParallel",
     1,
     {"parallel.sequence_parallel=2"},
     "override: parallel.sequence_parallel: expected true or false, got '2'"},
    {"CheckCollectives",
     1,
     {"parallel.check_collectives=yes"},
     "override: parallel.check_collectives: expected true or false, got 'yes'"},
    {"Capacity",
     1,
     {"model.expert_capacity_factor=-1"},
     "override: model.expert_capacity_factor: must be at least 0, got -1"},
    {"BalancedRouting",
     1,
     {"model.force_balanced_routing=1"},
     "override: model.force_balanced_routing: expected true or false, got '1'"},
};
INSTANTIATE_TEST_SUITE_P(Keys, ParallelRules, ::testing::ValuesIn(kKeys), name_of);

const Setting kMeshes[] = {
    {"AllAxes", 16, {"parallel={tp: 2, pp: 2, cp: 2, ep: 4}"}, ""},
    {"TheWorldIsNotKnownYet", 0, {"parallel={tp: 2, pp: 3, cp: 5, ep: 8}"}, ""},
    {"NoMultiple",
     4,
     {"parallel.pp=3"},
     "override: parallel.pp: 4 ranks are no multiple of tp x pp x cp = 1 x 3 x 1 = 3; nearest: "
     "parallel.pp=2 or parallel.pp=4"},
    {"MoreThanThereAre",
     1,
     {"parallel.tp=2"},
     "override: parallel.tp: 1 ranks are no multiple of tp x pp x cp = 2 x 1 x 1 = 2; nearest: "
     "parallel.tp=1"},
    {"ExpertsOverOtherRanks",
     4,
     {"parallel={tp: 2, ep: 4}"},
     "override: parallel.ep: 4 does not divide dp x cp = 2 x 1 = 2; nearest: parallel.tp=1 or "
     "parallel.ep=2"},
};
INSTANTIATE_TEST_SUITE_P(Meshes, ParallelRules, ::testing::ValuesIn(kMeshes), name_of);

const Setting kModels[] = {
    {"Heads",
     0,
     {"parallel.tp=3"},
     "override: parallel.tp: 3 ranks cannot share 4 attention heads evenly; nearest: 2 or 4"},
    {"HeadsOnTheseRanks",
     6,
     {"parallel.tp=3", "model.num_attention_heads=8"},
     "override: parallel.tp: 3 ranks cannot share 8 attention heads evenly; nearest: 2"},
    {"MoreRanksThanHeads",
     8,
     {"parallel.tp=8"},
     "override: parallel.tp: 8 ranks cannot share 4 attention heads evenly; nearest: 4"},
    {"KeyHeadsOfSeveralRanks", 4, {"parallel.tp=4"}, ""},
    {"KeyHeads",
     0,
     {"parallel.tp=3", "model.hidden_size=48", "model.num_attention_heads=12",
      "model.num_key_value_heads=4"},
     "override: parallel.tp: 3 ranks neither divide 4 key and value heads nor are a multiple of "
     "them; nearest: 2 or 4"},
    {"NearestHeadsSuitKeyHeads",
     0,
     {"parallel.tp=5", "model.hidden_size=48", "model.num_attention_heads=12",
      "model.num_key_value_heads=4"},
     "override: parallel.tp: 5 ranks cannot share 12 attention heads evenly; nearest: 4 or 12"},
    {"HeadsWithoutAttention", 3, {"parallel.tp=3", "model.layer_pattern=M"}, ""},
    {"NarrowExperts",
     0,
     {"parallel.tp=4", "model.expert_intermediate_size=3"},
     "override: parallel.tp: 4 ranks are more than the narrowest dim that they share "
     "(model.expert_intermediate_size: 3); nearest: 2"},
    {"NarrowExpertsOfADenseModel",
     4,
     {"parallel.tp=4", "model.expert_intermediate_size=3", "model.num_experts=1"},
     ""},
    {"NarrowVocabulary",
     0,
     {"parallel.tp=20", "model.vocab_size=16", "model.layer_pattern=M"},
     "override: parallel.tp: 20 ranks are more than the narrowest dim that they share "
     "(model.vocab_size: 16); nearest: 16"},
    {"NarrowFeedForward",
     0,
     {"parallel.tp=20", "model.intermediate_size=9", "model.layer_pattern=M"},
     "override: parallel.tp: 20 ranks are more than the narrowest dim that they share "
     "(model.intermediate_size: 9); nearest: 9"},
    {"NarrowMixer",
     0,
     {"parallel.tp=50", "model.mamba_expand=1", "model.layer_pattern=M"},
     "override: parallel.tp: 50 ranks are more than the narrowest dim that they share "
     "(model.mamba_expand x hidden_size: 32); nearest: 32"},
    {"Experts",
     0,
     {"parallel.ep=3"},
     "override: parallel.ep: 3 ranks cannot share 16 experts evenly; nearest: 2 or 4"},
    {"ExpertsOnTheseRanks",
     6,
     {"parallel.ep=3"},
     "override: parallel.ep: 3 ranks cannot share 16 experts evenly; nearest: 2"},
    {"MoreRanksThanExperts",
     0,
     {"parallel.ep=32"},
     "override: parallel.ep: 32 ranks cannot share 16 experts evenly; nearest: 16"},
    {"ExpertsOfADenseModel", 3, {"parallel.ep=3", "model.num_experts=1"}, ""},
    {"ShortSequences", 5, {"parallel.cp=5"}, ""},
    {"ShorterThanTheConvolution",
     0,
     {"parallel.cp=6"},
     "override: parallel.cp: 6 ranks get 2 of the 16 tokens of data.seq_len each, but need 3, as "
     "the convolution looks back (model.mamba_d_conv - 1); nearest: 5"},
    {"ShorterThanTheConvolutionOnTheseRanks",
     8,
     {"parallel.cp=8"},
     "override: parallel.cp: 8 ranks get 2 of the 16 tokens of data.seq_len each, but need 3, as "
     "the convolution looks back (model.mamba_d_conv - 1); nearest: 4"},
    {"ShorterThanAToken",
     0,
     {"parallel.cp=17", "model.layer_pattern=A"},
     "override: parallel.cp: 17 ranks get 0 of the 16 tokens of data.seq_len each, but need 1; "
     "nearest: 16"},
    {"OneTokenEachWithoutConvolution", 16, {"parallel.cp=16", "model.layer_pattern=A"}, ""},
    {"OneRankMayHaveLessThanTheConvolution", 1, {"data.seq_len=1"}, ""},
};
INSTANTIATE_TEST_SUITE_P(Models, ParallelRules, ::testing::ValuesIn(kModels), name_of);

const Setting kStages[] = {
    {"ChunksWithoutStages",
     1,
     {"parallel.pp_chunks=2"},
     "override: parallel.pp_chunks: must be 1 without pipeline stages (parallel.pp is 1), got 2"},
    {"MoreStagesThanLayers",
     9,
     {"parallel.pp=9"},
     "override: parallel.pp: 9 stages must be at most model.num_hidden_layers (8)"},
    {"MoreChunksThanLayers",
     3,
     {"parallel={pp: 3, pp_chunks: 3}", "train.global_batch_size=3"},
     "override: parallel.pp: 3 stages x 3 chunks must be at most model.num_hidden_layers (8)"},
    {"Split", 2, {"parallel={pp: 2, pp_layers: 5 3}"}, ""},
    {"SplitOfOneStage", 1, {"parallel.pp_layers=8"}, ""},
    {"SplitWithAnEmptyChunk", 2, {"parallel={pp: 2, pp_layers: 0 8}"}, ""},
    {"SplitOfChunks",
     2,
     {"parallel={pp: 2, pp_chunks: 2, pp_layers: 3 2 2 1}", "train.global_batch_size=2"},
     ""},
    {"SplitOfAnotherSum",
     2,
     {"parallel={pp: 2, pp_layers: 5 4}"},
     "override: parallel.pp_layers: must be as many whole numbers as chunks (2), with spaces "
     "between, that add up to model.num_hidden_layers (8), got '5 4'"},
    {"SplitOfAnotherCount",
     2,
     {"parallel={pp: 2, pp_layers: 3 3 2}"},
     "override: parallel.pp_layers: must be as many whole numbers as chunks (2), with spaces "
     "between, that add up to model.num_hidden_layers (8), got '3 3 2'"},
    {"SplitWithCommas",
     2,
     {"parallel={pp: 2, pp_layers: '5,3'}"},
     "override: parallel.pp_layers: must be as many whole numbers as chunks (2), with spaces "
     "between, that add up to model.num_hidden_layers (8), got '5,3'"},
};
INSTANTIATE_TEST_SUITE_P(Stages, ParallelRules, ::testing::ValuesIn(kStages), name_of);

const Setting kBatches[] = {
    {"OnlyDataParallelRanksShareTheBatch",
     8,
     {"parallel={tp: 2, cp: 2}", "train.global_batch_size=3"},
     "override: train.global_batch_size: 3 is no multiple of train.micro_batch_size x "
     "data-parallel ranks (1 x 2 = 2); nearest: 2 or 4"},
    {"Interleaved", 4, {"parallel={pp: 2, pp_chunks: 2}", "train.global_batch_size=8"}, ""},
    {"InterleavedOddly",
     4,
     {"parallel={pp: 2, pp_chunks: 2}", "train.global_batch_size=6"},
     "override: parallel.pp_chunks: above 1, a rank's microbatches a step must be a multiple of "
     "parallel.pp (2), but train.global_batch_size gives 3; nearest train.global_batch_size: 4 or "
     "8"},
    {"InterleavedByDefault",
     4,
     {"parallel={pp: 4, pp_chunks: 2}"},
     "override: parallel.pp_chunks: above 1, a rank's microbatches a step must be a multiple of "
     "parallel.pp (4), but train.global_batch_size gives 1; nearest train.global_batch_size: 4"},
    {"OddlyWithoutChunks", 2, {"parallel.pp=2", "train.global_batch_size=3"}, ""},
    {"Tree", 4, {"parallel.deterministic=tree", "train.global_batch_size=8"}, ""},
    {"TreeOfThree",
     6,
     {"parallel={pp: 2, deterministic: tree}", "train.global_batch_size=12"},
     "override: parallel.deterministic: tree needs a power of two of data-parallel ranks, got 3"},
    {"TreeOverThreeMicrobatches",
     2,
     {"parallel.deterministic=tree",
      "train={steps: 100, micro_batch_size: 5, "
      "global_batch_size: 30}"},
     "override: parallel.deterministic: tree needs a power of two of microbatches a rank, but "
     "train.global_batch_size gives 3; nearest train.global_batch_size: 20 or 40"},
    {"MeshTakesAnyNumber", 3, {"parallel.deterministic=mesh", "train.global_batch_size=9"}, ""},
};
INSTANTIATE_TEST_SUITE_P(Batches, ParallelRules, ::testing::ValuesIn(kBatches), name_of);

TEST(ParseLayers, TakesWholeNumbersWithSpacesBetween) {
  EXPECT_THAT(parse_layers("5 3"), ElementsAre(5, 3));
  EXPECT_THAT(parse_layers("  0\t12 "), ElementsAre(0, 12));
  for (const char* text : {"", " ", "5,3", "5 -3", "5 3x", "1.5", "+1", "9999999999"}) {
    EXPECT_THAT(parse_layers(text), IsEmpty()) << text;
  }
}

TEST_F(ConfigFiles, ParallelFaultsComeTogether) {
  EXPECT_EQ(faults(kSoundRun, {"parallel={tp: 3, ep: 3, cp: 6, pp: 9}"}, 0),
            "override: parallel.tp: 3 ranks cannot share 4 attention heads evenly; nearest: 2 or "
            "4\n"
            "override: parallel.ep: 3 ranks cannot share 16 experts evenly; nearest: 2 or 4\n"
            "override: parallel.cp: 6 ranks get 2 of the 16 tokens of data.seq_len each, but need "
            "3, as the convolution looks back (model.mamba_d_conv - 1); nearest: 5\n"
            "override: parallel.pp: 9 stages must be at most model.num_hidden_layers (8)");
}

}  // namespace
}  // namespace jamba

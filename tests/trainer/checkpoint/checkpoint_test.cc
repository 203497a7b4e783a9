#include "trainer/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "tests/trainer/checkpoint/checkpoint_support.h"

namespace jamba::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CheckpointRanks : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, CheckpointRanks, ::testing::Values(1, 2, 4));

TEST_P(CheckpointRanks, RoundTripIsBitwise) {
  const TemporaryDirectory root;
  save_state(root.path(), 12, 7, GetParam());
  EXPECT_THAT(names_in(root.path()), ElementsAre("step-00000012"));
  run_ranks(GetParam(), [&](Communicator& comm) {
    State state(logical_tensors(), 0, GetParam(), comm.rank());
    load_checkpoint(root / "step-00000012", state.slices());
    EXPECT_TRUE(state.holds(7));
  });
}

TEST_P(CheckpointRanks, LoadsOnAnyOtherCut) {
  const TemporaryDirectory root;
  save_state(root.path(), 3, 9, GetParam());
  for (const int dim : {0, 1, 2}) {
    for (const std::int64_t parts : {1, 2, 3, 5}) {
      for (std::int64_t index = 0; index < parts; ++index) {
        State state(logical_tensors(), dim, parts, index);
        load_checkpoint(root / "step-00000003", state.slices());
        EXPECT_TRUE(state.holds(9)) << "part " << index << " of " << parts << " along " << dim;
      }
    }
  }
}

TEST(Checkpoint, KeepsWhatWasSaidAboutTheRun) {
  const TemporaryDirectory root;
  save_state(root.path(), 1200, 1, 2);
  const CheckpointInfo want = info_of_step(1200);
  const Manifest manifest = read_manifest(root / "step-00001200");
  EXPECT_EQ(manifest.world_size, 2);
  EXPECT_EQ(manifest.info.step, want.step);
  EXPECT_EQ(manifest.info.tokens_seen, want.tokens_seen);
  EXPECT_EQ(manifest.info.sampler_seed, want.sampler_seed);
  EXPECT_EQ(manifest.info.sampler_position, want.sampler_position);
  EXPECT_EQ(manifest.info.weights_only, want.weights_only);
  EXPECT_EQ(manifest.info.run_config, want.run_config);
  EXPECT_EQ(manifest.info.mesh, want.mesh);
  EXPECT_EQ(manifest.info.tokenizer_hash, want.tokenizer_hash);
  EXPECT_THAT(manifest.info.tokenizer_model, IsEmpty());
  EXPECT_EQ(read_tokenizer_model(root / "step-00001200", manifest), want.tokenizer_model);
  EXPECT_NO_THROW(expect_same_model("here", manifest, want.model));
  EXPECT_THAT(names_in(root / "step-00001200"),
              ElementsAre("MANIFEST.json", "rank-00000.h5", "rank-00001.h5", "tokenizer.model"));
}

TEST(Checkpoint, ARankWithoutSlicesWritesNoFile) {
  const TemporaryDirectory root;
  run_ranks(3, [&](Communicator& comm) {
    State state(logical_tensors(), 0, 1, 0);
    state.fill(5);
    std::vector<StateSlice> mine;
    if (comm.rank() == 1) mine = state.slices();
    save_checkpoint(comm, root.path(), info_of_step(1), mine);
  });
  EXPECT_THAT(names_in(root / "step-00000001"),
              ElementsAre("MANIFEST.json", "rank-00001.h5", "tokenizer.model"));
  expect_loads(root / "step-00000001", 5);
}

TEST(Checkpoint, ReplacesOneOfTheSameStep) {
  const TemporaryDirectory root;
  save_state(root.path(), 5, 1, 2);
  save_state(root.path(), 5, 2, 1);
  EXPECT_THAT(names_in(root.path()), ElementsAre("step-00000005"));
  expect_loads(root / "step-00000005", 2);
}

TEST(Checkpoint, EveryElementMustBeSavedOnce) {
  const TemporaryDirectory root;
  const std::vector<LogicalTensor> tensors = {{"weight/a", {8, 2}}};
  const auto save = [&](std::int64_t parts, std::int64_t shift) {
    return message_of<CheckpointError>([&] {
      run_ranks(2, [&](Communicator& comm) {
        State state(tensors, 0, parts, comm.rank() * shift);
        save_checkpoint(comm, root.path(), info_of_step(1), state.slices());
      });
    });
  };
  EXPECT_THAT(save(4, 1), AllOf(HasSubstr("weight/a"), HasSubstr("8 of 16 elements")));
  EXPECT_THAT(save(1, 0), AllOf(HasSubstr("weight/a"), HasSubstr("overlap")));
  EXPECT_EQ(save(2, 1), "nothing was thrown");
  EXPECT_THAT(names_in(root.path()), ElementsAre("step-00000001"));
}

std::string load_error(const std::string& path, const std::vector<LogicalTensor>& tensors,
                       Wanted mode = Wanted::whole_groups) {
  State state(tensors, 0, 1, 0);
  return message_of<CheckpointError>([&] { load_checkpoint(path, state.slices(), mode); });
}

TEST(Checkpoint, ListsEveryDifferenceOfTheTensors) {
  const TemporaryDirectory root;
  save_state(root.path(), 1, 1, 2);
  const std::string error = load_error(root / "step-00000001",
                                       {{"weight/model.embed_tokens.weight", {36, 12}},
                                        {"weight/model.final_layernorm.weight", {13}, DType::bf16},
                                        {"weight/new", {4}},
                                        {"adam_m/model.embed_tokens.weight", {37, 12}}});
  EXPECT_THAT(error, HasSubstr("weight/model.embed_tokens.weight: stored float32[37, 12], wanted "
                               "float32[36, 12]"));
  EXPECT_THAT(error, HasSubstr("weight/model.final_layernorm.weight: stored float32[13], wanted "
                               "bfloat16[13]"));
  EXPECT_THAT(error, HasSubstr("missing: weight/new"));
  EXPECT_THAT(error,
              HasSubstr("not wanted: weight/model.layers.0.feed_forward.experts.gate_up_proj"));
  EXPECT_THAT(error, ::testing::Not(HasSubstr("adam")));
}

TEST(Checkpoint, ReadsWholeGroupsOrSomeTensors) {
  const TemporaryDirectory root;
  save_state(root.path(), 1, 1, 2);
  const std::string path = root / "step-00000001";
  const LogicalTensor embedding{"weight/model.embed_tokens.weight", {37, 12}};
  EXPECT_THAT(load_error(path, {embedding}), HasSubstr("not wanted: weight/model.final_layernorm"));
  EXPECT_EQ(load_error(path, {embedding}, Wanted::some_tensors), "nothing was thrown");
  EXPECT_EQ(load_error(path, {{"counters/steps", {3}, DType::i64}}), "nothing was thrown");
}

TEST(Checkpoint, AnotherModelIsRefusedFieldByField) {
  const TemporaryDirectory root;
  save_state(root.path(), 1, 1, 1);
  const Manifest manifest = read_manifest(root / "step-00000001");
  ModelConfig other = small_model();
  other.hidden_size = 32;
  other.layer_pattern = "M Me M Ae";
  other.num_experts = 4;
  other.router_aux_loss_coef = 0.5;  // a choice of the run, not of the model
  const std::string error =
      message_of<CheckpointError>([&] { expect_same_model("here", manifest, other); });
  EXPECT_THAT(error,
              AllOf(HasSubstr("hidden_size: 16 against 32"),
                    HasSubstr("layers: \"MMeAMe\" against \"MMeMAe\""),
                    HasSubstr("num_experts: 3 against 4"), ::testing::Not(HasSubstr("coef"))));
}

TEST(FindLatest, FindsNothingWhereNothingIs) {
  const TemporaryDirectory root;
  EXPECT_FALSE(find_latest(root.path()).has_value());
  EXPECT_FALSE(find_latest(root / "missing").has_value());
  EXPECT_THROW(resolve_checkpoint(root.path()), NoInputError);
  write_bytes(root / "file", "");
  EXPECT_THROW(resolve_checkpoint(root / "file"), NoInputError);
}

TEST(FindLatest, SkipsWhatIsNotSoundAndSaysWhy) {
  const TemporaryDirectory root;
  for (const int step : {1, 2, 3, 4, 5})
    save_state(root.path(), step, static_cast<std::uint64_t>(step), 2);
  std::filesystem::remove(root / "step-00000005/MANIFEST.json");
  std::filesystem::resize_file(root / "step-00000004/rank-00001.h5", 100);
  std::filesystem::rename(root / "step-00000003", root / "step-00000006");
  std::filesystem::create_directory(root / ".tmp-step-00000009");
  write_bytes(root / "notes.txt", "not a checkpoint");
  const auto found = find_latest(root.path());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->path, root / "step-00000002");
  EXPECT_THAT(found->skipped,
              ElementsAre(HasSubstr("is of step 3, but its directory is named for 6"),
                          HasSubstr("MANIFEST.json: cannot open"),
                          AllOf(HasSubstr("rank-00001.h5"), HasSubstr("100 bytes"))));
  EXPECT_EQ(resolve_checkpoint(root.path()).path, root / "step-00000002");
  EXPECT_EQ(resolve_checkpoint(root / "step-00000001").manifest.info.step, 1);

  const std::vector<std::string> skip = {root / "step-00000002"};
  EXPECT_EQ(find_latest(root.path(), skip)->path, root / "step-00000001");
  std::filesystem::remove(root / "step-00000001/MANIFEST.json");
  EXPECT_THAT(message_of<CheckpointError>([&] { find_latest(root.path(), skip); }),
              HasSubstr("no sound checkpoint"));
}

TEST(FindLatest, LeftoversOfKilledRunsGo) {
  const TemporaryDirectory root;
  save_state(root.path(), 1, 1, 1);
  std::filesystem::create_directories(root / ".tmp-step-00000009");
  write_bytes(root / ".tmp-step-00000009/rank-00000.h5", "half");
  EXPECT_THAT(remove_leftovers(root.path()), ElementsAre(".tmp-step-00000009"));
  EXPECT_THAT(names_in(root.path()), ElementsAre("step-00000001"));
  EXPECT_THAT(remove_leftovers(root / "missing"), IsEmpty());
}

TEST(Prune, KeepsTheNewestSoundOnes) {
  const TemporaryDirectory root;
  for (const int step : {1, 2, 3, 4, 5}) save_state(root.path(), step, 1, 1);
  std::filesystem::remove(root / "step-00000004/MANIFEST.json");
  EXPECT_THAT(prune(root.path(), 2), ElementsAre(root / "step-00000002", root / "step-00000001"));
  EXPECT_THAT(names_in(root.path()),
              ElementsAre("step-00000003", "step-00000004", "step-00000005"));
  EXPECT_THAT(prune(root.path(), 2), IsEmpty());
  EXPECT_THROW(prune(root.path(), 0), LogicError);
}

}  // namespace
}  // namespace jamba::test

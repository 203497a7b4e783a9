// A run from its config to its checkpoints, and exact resumption.

#include "trainer/training_run.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "data/prepare.h"
#include "parallel/comm/thread_group.h"
#include "tests/support/tensors.h"
#include "tests/trainer/model_fixture.h"
#include "trainer/app/demo_text.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/run_state.h"

namespace jamba {
namespace {

namespace fs = std::filesystem;

class TrainingRunTest : public testing::Test {
 protected:
  TrainingRunTest() {
    std::string pattern = (fs::temp_directory_path() / "jamba-run-XXXXXX").string();
    dir_ = mkdtemp(pattern.data());
    const auto bytes = load_tokenizer("bytes");
    std::ofstream text(dir_ + "/text.jsonl");
    for (std::uint64_t i = 0; i < 60; ++i) {
      std::string story = demo_story(i);
      story.pop_back();  // its line end
      std::erase(story, '"');
      text << "{\"text\": \"" << story << "\"}\n";
    }
    text.close();
    prepare_stores({.inputs = {dir_ + "/text.jsonl"},
                    .output_dir = dir_,
                    .name = "stories",
                    .validation_fraction = 0.1},
                   *bytes);
  }
  ~TrainingRunTest() override { fs::remove_all(dir_); }

  RunConfig config(const std::string& name) const {
    RunConfig c;
    c.run_dir = dir_ + "/" + name;
    c.model = test::small_config();
    c.model.vocab_size = 259;
    c.model.router_jitter = 0.1;
    c.data.sources = {
        {"stories", dir_ + "/stories.train.h5", dir_ + "/stories.validation.h5", 1.0}};
    c.data.tokenizer = "bytes";
    c.data.seq_len = 32;
    c.train.steps = 20;
    c.train.micro_batch_size = 1;
    c.train.global_batch_size = 4;
    c.train.peak_gflops = 1;
    c.optimizer.lr = 3e-3;
    c.optimizer.warmup_steps = 4;
    c.eval.max_tokens = 512;
    c.log.every = 100;
    return c;
  }

  static ExitCode train(const RunConfig& c, int ranks, std::atomic<bool>& stop) {
    ExitCode code = ExitCode::bug;
    run_ranks(ranks, [&](Communicator& comm) {
      Stream stream = Stream::cpu(1);
      const ExitCode mine = TrainingRun(c, comm, stream, stop).run();
      if (comm.rank() == 0) code = mine;
    });
    return code;
  }

  /// Weights and moments of the newest checkpoint.
  static std::vector<float> state(const RunConfig& c, std::int64_t expected_step) {
    Stream stream = Stream::cpu(1);
    const Mesh mesh;
    RankModel rank(c, mesh, stream);
    const auto found = find_latest(c.run_dir + "/checkpoints");
    EXPECT_TRUE(found.has_value());
    EXPECT_EQ(found->manifest.info.step, expected_step);
    const Masters masters(rank.parameters(), Masters::Access::read);
    const std::vector<StateSlice> slices =
        training_slices(masters, rank.optimizer(), Elements::owned);
    load_checkpoint(found->path, slices);
    std::vector<float> out;
    for (const StateSlice& slice : slices) {
      const float* begin = slice.data.ptr<float>();
      out.insert(out.end(), begin, begin + slice.data.numel());
    }
    return out;
  }

  std::string dir_;
};

TEST_F(TrainingRunTest, ASecondJobInTheRunDirectoryIsTurnedAway) {
  std::atomic<bool> stop{false};
  const RunConfig c = config("shared");
  {
    const RunDirectory held(c.run_dir);
    EXPECT_THROW(train(c, 2, stop), CannotCreateError);
    EXPECT_FALSE(fs::exists(c.run_dir + "/metrics.jsonl"));
  }
  EXPECT_EQ(train(c, 2, stop), ExitCode::ok);
}

TEST_F(TrainingRunTest, TenAndTenStepsAreTwentyStepsInEveryBit) {
  for (const int ranks : {1, 2}) {
    std::atomic<bool> stop{false};
    const RunConfig whole = config(fmt::format("whole{}", ranks));
    EXPECT_EQ(train(whole, ranks, stop), ExitCode::ok);

    // The first half knows that the run has twenty steps, as an interrupted one does.
    RunConfig halves = config(fmt::format("halves{}", ranks));
    halves.checkpoint.every = 10;
    stop = true;
    EXPECT_EQ(train(halves, ranks, stop), ExitCode::preempted);
    state(halves, 1);
    stop = false;
    EXPECT_EQ(train(halves, ranks, stop), ExitCode::ok);
    EXPECT_EQ(state(halves, 20), state(whole, 20));
  }
}

/// "tp=2 pp=2" and how many ranks that takes.
struct MeshCase {
  int ranks;
  std::vector<std::string> settings;
};

TEST_F(TrainingRunTest, ResumesExactlyOnEveryMesh) {
  const MeshCase cases[] = {{4, {"parallel.tp=2", "parallel.pp=2"}},
                            {2, {"parallel.zero=3"}},
                            {2, {"parallel.cp=2", "parallel.ep=2"}},
                            {4, {"parallel.pp=2", "parallel.pp_chunks=2", "parallel.zero=1"}},
                            {2, {"parallel.zero=2", "train.dtype=bfloat16"}},
                            {2, {"parallel.tp=2", "train.dtype=bfloat16"}}};
  for (const auto& [ranks, settings] : cases) {
    const std::string name = fmt::format("{}", fmt::join(settings, " "));
    SCOPED_TRACE(name);
    std::atomic<bool> stop{false};
    RunConfig whole = with_overrides(config("whole " + name), settings);
    RunConfig halves = with_overrides(config("halves " + name), settings);
    whole.train.steps = halves.train.steps = 6;
    EXPECT_EQ(train(whole, ranks, stop), ExitCode::ok);
    stop = true;
    EXPECT_EQ(train(halves, ranks, stop), ExitCode::preempted);
    stop = false;
    EXPECT_EQ(train(halves, ranks, stop), ExitCode::ok);
    EXPECT_EQ(state(halves, 6), state(whole, 6));
  }
}

TEST_F(TrainingRunTest, ACheckpointOfOneMeshGivesTheSameLossOnAnyOther) {
  std::atomic<bool> stop{false};
  RunConfig c = config("moving");
  c.train.steps = 4;
  EXPECT_EQ(train(with_overrides(c, {{"parallel.tp=2", "parallel.pp=2"}}), 4, stop), ExitCode::ok);
  const std::vector<float> saved = state(c, 4);
  const MeshCase cases[] = {
      {1, {"parallel.tp=1"}},
      {4, {"parallel.zero=3", "parallel.ep=2"}},
      {4, {"parallel.tp=4"}},
      {6, {"parallel.cp=3", "parallel.tp=2"}},
      {8, {"parallel.tp=2", "parallel.pp=2", "parallel.cp=2", "parallel.ep=2", "parallel.zero=2"}}};
  for (const auto& [ranks, settings] : cases) {  // all steps are done: it loads and evaluates
    EXPECT_EQ(train(with_overrides(c, settings), ranks, stop), ExitCode::ok);
  }
  EXPECT_EQ(state(c, 4), saved);
  std::vector<double> losses;
  std::ifstream metrics(c.run_dir + "/metrics.jsonl");
  for (std::string line; std::getline(metrics, line);) {
    const std::size_t at = line.find("\"mean_loss\":");
    if (at != std::string::npos) losses.push_back(std::stod(line.substr(at + 12)));
  }
  ASSERT_EQ(losses.size(), 6u);
  for (const double loss : losses) EXPECT_NEAR(loss, losses[0], 1e-6);
}

TEST_F(TrainingRunTest, AMeshTrainsOnThatOfAnother) {
  std::atomic<bool> stop{false};
  RunConfig c = config("changing");
  c.train.steps = 6;
  stop = true;
  EXPECT_EQ(train(with_overrides(c, {{"parallel.tp=2"}}), 2, stop), ExitCode::preempted);
  stop = false;
  EXPECT_EQ(train(with_overrides(c, {{"parallel.pp=2", "parallel.zero=1"}}), 4, stop),
            ExitCode::ok);
  RunConfig alone = config("alone");
  alone.train.steps = 6;
  EXPECT_EQ(train(alone, 1, stop), ExitCode::ok);
  const std::vector<float> got = state(c, 6), want = state(alone, 6);
  EXPECT_LE(test::worst_error({got.begin(), got.end()}, {want.begin(), want.end()}), 1e-3);
}

TEST_F(TrainingRunTest, ABfloat16RunResumesExactlyToo) {
  std::atomic<bool> stop{false};
  RunConfig whole = config("whole"), halves = config("halves");
  whole.train.dtype = halves.train.dtype = DType::bf16;
  whole.train.steps = halves.train.steps = 6;
  EXPECT_EQ(train(whole, 1, stop), ExitCode::ok);
  stop = true;
  EXPECT_EQ(train(halves, 1, stop), ExitCode::preempted);
  stop = false;
  EXPECT_EQ(train(halves, 1, stop), ExitCode::ok);
  EXPECT_EQ(state(halves, 6), state(whole, 6));
}

TEST_F(TrainingRunTest, LearnsAndKeepsTheLastCheckpoints) {
  std::atomic<bool> stop{false};
  RunConfig c = config("learn");
  c.train.steps = 60;
  c.checkpoint.every = 10;
  c.checkpoint.keep = 2;
  EXPECT_EQ(train(c, 1, stop), ExitCode::ok);
  std::int64_t kept = 0;
  for (const auto& entry : fs::directory_iterator(c.run_dir + "/checkpoints")) {
    kept += entry.is_directory() ? 1 : 0;
  }
  EXPECT_EQ(kept, 2);
  EXPECT_TRUE(fs::exists(c.run_dir + "/config.yaml"));
  EXPECT_TRUE(fs::exists(c.run_dir + "/tensorboard"));

  std::ifstream metrics(c.run_dir + "/metrics.jsonl");
  std::string line, last;
  std::int64_t steps = 0;
  while (std::getline(metrics, line)) {
    steps += line.find("\"kind\":\"step\"") != std::string::npos ? 1 : 0;
    if (line.find("\"kind\":\"eval\"") != std::string::npos) last = line;
  }
  EXPECT_EQ(steps, 60);
  const std::size_t at = last.find("\"mean_loss\":");
  ASSERT_NE(at, std::string::npos);
  EXPECT_LT(std::stod(last.substr(at + 12)), 3.2);  // 5.56 is what 259 even ids cost
}

TEST_F(TrainingRunTest, FallsBackFromADamagedCheckpointAndSaysNothingIsLost) {
  std::atomic<bool> stop{false};
  RunConfig c = config("damaged");
  c.checkpoint.every = 10;
  EXPECT_EQ(train(c, 1, stop), ExitCode::ok);
  const std::vector<float> finished = state(c, 20);
  const std::string file = checkpoint_path(c.run_dir + "/checkpoints", 20) + "/rank-00000.h5";
  {
    std::fstream damage(file, std::ios::in | std::ios::out | std::ios::binary);
    damage.seekp(static_cast<std::streamoff>(fs::file_size(file) / 2));
    damage.put('\x5a');
  }
  EXPECT_EQ(train(c, 1, stop), ExitCode::ok);  // from step 10 again
  EXPECT_EQ(state(c, 20), finished);
}

TEST_F(TrainingRunTest, RefusesACheckpointOfAnotherModel) {
  std::atomic<bool> stop{false};
  RunConfig c = config("other");
  c.train.steps = 2;
  c.optimizer.warmup_steps = 0;
  EXPECT_EQ(train(c, 1, stop), ExitCode::ok);
  c.model.hidden_size = 32;
  EXPECT_THROW(train(c, 1, stop), CheckpointError);
}

TEST_F(TrainingRunTest, StopsAfterTooManySkippedSteps) {
  std::atomic<bool> stop{false};
  RunConfig c = config("diverged");
  c.optimizer.lr = 1e30;
  c.optimizer.warmup_steps = 0;
  c.train.max_skipped_steps = 3;
  EXPECT_THROW(train(c, 1, stop), DivergedError);
}

}  // namespace
}  // namespace jamba

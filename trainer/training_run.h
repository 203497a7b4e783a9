#pragma once
// A whole training run: from a config and its run directory to a trained model.

#include <atomic>
#include <memory>
#include <optional>

#include "data/tokenizer.h"
#include "parallel/comm/communicator.h"
#include "trainer/evaluate.h"
#include "trainer/run_config.h"
#include "trainer/run_directory.h"
#include "trainer/run_log.h"
#include "trainer/step_trace.h"
#include "trainer/train_step.h"

namespace jamba {

/// How a run was started.
struct LaunchInfo {
  int ranks_a_node = 1;
  std::string device = "CPU";  // in words, for the log
  /// File for chrome://tracing that shows two warm steps of all ranks; empty: none.
  std::string trace{};
};

/// Owns the model, optimizer and data of one rank. All ranks construct it and call run() together.
/// Holds the run directory: another job on it ends with CannotCreateError.
/// The run directory gets the resolved config, metrics.jsonl, tensorboard/ and checkpoints/; if it
/// holds checkpoints, the run continues from the newest sound one.
class TrainingRun {
 public:
  /// config: sound, with global_batch_size resolved.
  /// Errors: the same on all ranks: everything that opening data or a checkpoint can throw.
  TrainingRun(const RunConfig& config, Communicator&, Stream&, const std::atomic<bool>& stop,
              const LaunchInfo& = {});

  /// Trains to the last step, or to the next step boundary after `stop` is set on any rank; saves,
  /// and evaluates at the end.   Returns ExitCode::ok or ExitCode::preempted.
  /// Errors: DivergedError after too many skipped steps in a row; what saving throws; CommError.
  ExitCode run();

 private:
  void open();
  void resume();
  void expect_same_start();
  void start();
  void log_start();
  StepRecord make_record(const StepOutcome&, std::int64_t step, double seconds);
  bool one_step(std::int64_t step);
  void evaluate(std::int64_t step);
  void save(std::int64_t step);
  void trace_step(std::int64_t step);
  std::vector<std::pair<std::string, std::int64_t>> sent_since(
      const std::vector<Mesh::Traffic>& before) const;
  bool due(std::int64_t every, std::int64_t step) const;

  const RunConfig config_;
  Communicator& comm_;
  Stream& stream_;
  const LaunchInfo launch_;
  const Mesh mesh_;
  const std::atomic<bool>& stop_;

  std::optional<RunDirectory> directory_;  // held by rank 0
  std::unique_ptr<RankModel> rank_;
  std::unique_ptr<TokenSource> tokens_;
  std::unique_ptr<Evaluator> evaluator_;
  std::unique_ptr<TrainStep> train_step_;
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<Tokenizer> tokenizer_;

  std::unique_ptr<StepTrace> trace_;
  std::int64_t first_step_ = 0;
  std::int64_t saved_step_ = -1;
  std::int64_t evaluated_step_ = -1;
  std::int64_t skipped_ = 0;
  std::int64_t skipped_in_a_row_ = 0;
  double peak_gflops_ = 0;
  double average_step_seconds_ = 0;
};

}  // namespace jamba

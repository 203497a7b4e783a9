#include "trainer/training_run.h"

#include <fstream>
#include <iterator>

#include "kernels/core/clock.h"
#include "kernels/core/device_times.h"
#include "kernels/linear/peak_rate.h"
#include "trainer/checkpoint/agreed.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/metrics/figures.h"
#include "trainer/metrics/format.h"
#include "trainer/metrics/peak_memory.h"
#include "trainer/model/initialize.h"
#include "trainer/run_state.h"

namespace jamba {

namespace {

class StoredTokens : public TokenSource {
 public:
  explicit StoredTokens(const RunConfig& c)
      : batches_(c.data, c.model.vocab_size, c.train.global_batch_size, c.train.seed) {}

  std::int64_t fill(std::int64_t step, std::int64_t micro, const Batch& out) override {
    return batches_.fill(step, micro, out);
  }

 private:
  TrainBatches batches_;
};

std::string file_content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace

TrainingRun::TrainingRun(const RunConfig& config, Communicator& comm, Stream& stream,
                         const std::atomic<bool>& stop, const LaunchInfo& launch)
    : config_(config),
      comm_(comm),
      stream_(stream),
      launch_(launch),
      mesh_(make_mesh(config, comm)),
      stop_(stop) {
  agreed(comm_, [&] { open(); });
  agreed(comm_, [&] { resume(); });
  expect_same_start();
  start();
  if (!launch.trace.empty()) trace_ = std::make_unique<StepTrace>(launch.trace);
  agreed(comm_, [&] { log_start(); });
}

void TrainingRun::open() {
  tokenizer_ = load_tokenizer(config_.data.tokenizer);
  tokens_ = std::make_unique<StoredTokens>(config_);
  evaluator_ = std::make_unique<Evaluator>(mesh_, stream_, config_.data, config_.model,
                                           config_.train.micro_batch_size, config_.eval.max_tokens);
  rank_ = std::make_unique<RankModel>(config_, mesh_, stream_);
  train_step_ = std::make_unique<TrainStep>(config_, stream_, *rank_);
  peak_gflops_ = config_.train.peak_gflops > 0 ? config_.train.peak_gflops
                                               : measure_peak_gflops(stream_, config_.train.dtype);
  if (comm_.rank() == 0) directory_.emplace(config_.run_dir);
}

/// Loads the newest sound checkpoint, if there is one.
void TrainingRun::resume() {
  const std::string root = checkpoint_root(config_.run_dir);
  std::vector<std::string> damaged;
  std::vector<std::string> notes;
  while (const auto found = find_latest(root, damaged)) {
    expect_same_model(found->path, found->manifest, config_.model);
    try {
      const Masters masters(rank_->parameters(), Masters::Access::write);
      load_checkpoint(found->path, training_slices(masters, rank_->optimizer(), Elements::owned),
                      comm_.size() == 1 ? Wanted::whole_groups : Wanted::some_tensors);
    } catch (const CheckpointError& e) {
      notes.push_back(fmt::format("skipping a damaged checkpoint: {}", e.what()));
      damaged.push_back(found->path);
      continue;
    }
    first_step_ = found->manifest.info.step;
    saved_step_ = first_step_;
    for (const std::string& change :
         config_changes(found->manifest.info.run_config, to_json(config_))) {
      notes.push_back("changed since the checkpoint: " + change);
    }
    break;
  }
  if (comm_.rank() != 0) {
    log_ = std::make_unique<RunLog>();
    return;
  }
  remove_leftovers(root);
  log_ = std::make_unique<RunLog>(config_,
                                  first_step_ > 0 ? std::optional(first_step_) : std::nullopt);
  for (const std::string& note : notes) log_->message(note);
}

/// Each rank reads the file system for itself; on a slow network mount they may see different
/// checkpoints.
void TrainingRun::expect_same_start() {
  std::int64_t newest = first_step_;
  comm_.all_reduce(stream_, Tensor(&newest, DType::i64, {1}), ReduceOp::max);
  agreed(comm_, [&] {
    if (first_step_ == newest) return;
    throw CheckpointError(
        fmt::format("{}: this rank sees step {} as the newest checkpoint, another one step {}. "
                    "Is it one shared directory? Try again once it shows the same everywhere",
                    checkpoint_root(config_.run_dir), first_step_, newest));
  });
}

/// Weights on all ranks: those of the checkpoint, or drawn from the seed.
void TrainingRun::start() {
  if (first_step_ > 0) {
    rank_->parameters().publish();
  } else {
    initialize(rank_->parameters(), config_.model, config_.train.seed);
  }
}

void TrainingRun::log_start() {
  const ParameterCount count = count_parameters(config_.model);
  log_->message(fmt::format("model   {} ({} parameters, {} active a token)",
                            config_.model.layer_map(),
                            format_count(static_cast<double>(count.total)),
                            format_count(static_cast<double>(count.active))));
  log_->message(fmt::format(
      "batch   {} sequences of {} tokens: {} x {} micro-batches of {}; {} threads a rank",
      config_.train.global_batch_size, config_.data.seq_len, mesh_.shape().dp,
      train_step_->num_micro(), config_.train.micro_batch_size, stream_.num_threads()));
  log_->message(fmt::format("device  {}", launch_.device));
  if (comm_.size() > 1) log_->message(mesh_table(mesh_.shape(), launch_.ranks_a_node));
  log_->message(fmt::format("run     {}", config_.run_dir));
  if (first_step_ > 0) log_->message(fmt::format("resuming after step {}", first_step_));
}

bool TrainingRun::due(std::int64_t every, std::int64_t step) const {
  return every > 0 && step % every == 0;
}

ExitCode TrainingRun::run() {
  std::int64_t step = first_step_;
  bool stopped = false;
  while (step < config_.train.steps && !stopped) {
    stopped = one_step(step);
    ++step;
    if (due(config_.eval.every, step)) evaluate(step);
    if (due(config_.checkpoint.every, step) || stopped) save(step);
  }
  if (trace_ != nullptr && step > first_step_ + 2) trace_->finish(stream_, comm_);
  const bool preempted = stopped && step < config_.train.steps;
  if (!preempted) {
    evaluate(step);
    save(step);
  }
  log_->message(preempted ? fmt::format("stopped after step {}; the same command continues", step)
                          : fmt::format("finished {} steps; checkpoint {}", step,
                                        checkpoint_path(checkpoint_root(config_.run_dir), step)));
  log_->finish();
  return preempted ? ExitCode::preempted : ExitCode::ok;
}

/// Returns whether any rank was asked to stop.
bool TrainingRun::one_step(std::int64_t step) {
  const Clock::time_point begin = Clock::now();
  const std::vector<Mesh::Traffic> sent_before = mesh_.traffic();
  stream_.profile().reset();
  trace_step(step);
  const bool last = step + 1 == config_.train.steps;
  const bool shown = due(config_.log.every, step + 1) || last;
  const bool on_device = stream_.device().kind == DeviceKind::cuda;
  // Timing parts on a device costs a little, so it is done for the steps that people look at.
  const bool timed = comm_.rank() == 0 && (shown || !on_device);
  if (timed) begin_device_times(stream_);
  const StepOutcome outcome = train_step_->run(*tokens_, step, stop_.load());
  const double seconds = seconds_since(begin);
  if (timed) end_device_times(stream_);
  skipped_ += outcome.skipped ? 1 : 0;
  skipped_in_a_row_ = outcome.skipped ? skipped_in_a_row_ + 1 : 0;
  // The first step after a start also warms caches and arenas: the average begins after it.
  const bool warm = average_step_seconds_ > 0 && step > first_step_ + 1;
  average_step_seconds_ = warm ? 0.9 * average_step_seconds_ + 0.1 * seconds : seconds;
  std::int64_t memory = on_device ? peak_device_bytes() : peak_memory_bytes();
  comm_.all_reduce(stream_, Tensor(&memory, DType::i64, {1}), ReduceOp::max);
  if (comm_.rank() == 0) {
    StepRecord record = make_record(outcome, step + 1, seconds);
    if (timed) record.seconds = stream_.profile().seconds;
    record.peak_memory_bytes = memory;
    record.sent_bytes = sent_since(sent_before);
    log_->write(record, shown);
    if (step == first_step_ + 1 && comm_.size() > 1) log_->message(traffic_line(record));
  }
  if (skipped_in_a_row_ >= config_.train.max_skipped_steps) {
    DivergedError error(fmt::format(
        "step {}: {} steps in a row had a loss or gradient that is not finite; the weights are "
        "those of step {}. Lower optimizer.lr, or resume from an earlier checkpoint",
        step + 1, skipped_in_a_row_, step + 1 - skipped_in_a_row_));
    error.set_on_all_ranks();
    throw error;
  }
  return outcome.stop_requested;
}

/// The third and fourth step: the first two warm up memory and caches.
void TrainingRun::trace_step(std::int64_t step) {
  if (trace_ == nullptr) return;
  if (step == first_step_ + 2) trace_->begin(stream_);
  if (step < first_step_ + 4) return;
  trace_->finish(stream_, comm_);
  trace_.reset();
}

std::vector<std::pair<std::string, std::int64_t>> TrainingRun::sent_since(
    const std::vector<Mesh::Traffic>& before) const {
  std::vector<std::pair<std::string, std::int64_t>> sent;
  const std::vector<Mesh::Traffic> now = mesh_.traffic();
  for (std::size_t i = 0; i < now.size(); ++i) {
    sent.emplace_back(now[i].axis, now[i].bytes - before[i].bytes);
  }
  return sent;
}

StepRecord TrainingRun::make_record(const StepOutcome& outcome, std::int64_t step, double seconds) {
  StepRecord r;
  const auto tokens_per_step =
      static_cast<double>(config_.train.global_batch_size * config_.data.seq_len);
  r.step = step;
  r.total_steps = config_.train.steps;
  r.tokens = step * config_.train.global_batch_size * config_.data.seq_len;
  r.loss = outcome.losses.total;
  r.lm_loss = outcome.losses.lm;
  r.aux_loss = outcome.losses.aux;
  r.z_loss = outcome.losses.z;
  r.activation_loss = outcome.losses.activation;
  r.grad_norm = outcome.grad_norm;
  r.lr = outcome.lr;
  r.step_seconds = seconds;
  r.tokens_per_second = tokens_per_step / seconds;
  r.peak_gflops = peak_gflops_ * comm_.size();
  r.mfu = model_flops_utilization(train_flops_per_token(config_.model, config_.data.seq_len),
                                  r.tokens_per_second, r.peak_gflops);
  r.expert_load_max = outcome.expert_load_max;
  r.expert_entropy = outcome.expert_entropy;
  r.dropped_rows = outcome.dropped_rows;
  r.skipped_steps = skipped_;
  r.seconds_left = average_step_seconds_ * static_cast<double>(config_.train.steps - step);
  return r;
}

void TrainingRun::evaluate(std::int64_t step) {
  if (evaluator_->empty() || evaluated_step_ == step) return;
  log_->write(evaluator_->run(stream_, rank_->runner(), step));
  evaluated_step_ = step;
}

void TrainingRun::save(std::int64_t step) {
  if (saved_step_ == step) return;
  CheckpointInfo info;
  info.step = step;
  info.tokens_seen = step * config_.train.global_batch_size * config_.data.seq_len;
  info.sampler_seed = config_.train.seed;
  info.sampler_position = step * config_.train.global_batch_size;
  info.model = config_.model;
  info.run_config = to_json(config_);
  const MeshShape& mesh = mesh_.shape();
  info.mesh = {{"dp", mesh.dp}, {"pp", mesh.pp}, {"cp", mesh.cp}, {"tp", mesh.tp}, {"ep", mesh.ep}};
  info.tokenizer_hash = tokenizer_->hash();
  if (config_.data.tokenizer != "bytes")
    info.tokenizer_model = file_content(config_.data.tokenizer);
  {
    const Masters masters(rank_->parameters(), Masters::Access::read);
    save_checkpoint(comm_, checkpoint_root(config_.run_dir), info,
                    training_slices(masters, rank_->optimizer(), Elements::share));
  }
  saved_step_ = step;
  agreed(comm_, [&] {
    if (comm_.rank() == 0) prune(checkpoint_root(config_.run_dir), config_.checkpoint.keep);
  });
}

}  // namespace jamba

#include "trainer/config/fields.h"

#include <fmt/format.h>

#include <cmath>

#include "trainer/config/field_tools.h"

namespace jamba::config {

namespace {

constexpr IntegerRange kDegree{1, 1 << 20};  // 64 bits hold the product of any three

void visit(FieldVisitor& v, DataSource& c) {
  v.text({"name", "Names the source in logs: letters, digits, '-' and '_'.", Need::for_run},
         c.name);
  v.text({"train", "Token store (HDF5) to train on.", Need::optional, "path"}, c.train);
  v.text({"validation", "Token store (HDF5) to evaluate on; empty: none."}, c.validation);
  v.real({"weight", "Share of the training tokens, relative; 0: evaluation only."}, c.weight,
         kNotNegative);
}

void visit(FieldVisitor& v, DataConfig& c) {
  const std::size_t count =
      v.begin_list({"sources", "Token stores, by source.", Need::for_run}, c.sources.size());
  c.sources.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    v.begin_item(i);
    visit(v, c.sources[i]);
    v.end_item();
  }
  v.end_list();
  v.text({"tokenizer", "SentencePiece .model file, or \"bytes\".", Need::for_run}, c.tokenizer);
  v.integer({"seq_len", "Tokens of a training sequence.", Need::for_run, "sequence_length"},
            c.seq_len, kCount);
  v.boolean({"reset_at_documents",
             "Documents packed into one sequence do not see each other: attention is "
             "block-diagonal, Mamba's state restarts."},
            c.reset_at_documents);
}

void visit(FieldVisitor& v, TrainConfig& c) {
  v.integer({"steps", "Optimizer steps of the run.", Need::for_run, "max_steps"}, c.steps, kCount);
  v.integer({"micro_batch_size", "Sequences in one forward.", Need::optional,
             "per_device_train_batch_size"},
            c.micro_batch_size, kCount);
  v.integer({"global_batch_size",
             "Sequences a step, over all ranks; 0: micro_batch_size x data-parallel ranks.",
             Need::optional, "batch_size"},
            c.global_batch_size, kCountOrNone);
  auto seed = static_cast<std::int64_t>(c.seed);
  v.integer({"seed", "Of the starting values and the order of the data."}, seed, kCountOrNone);
  c.seed = static_cast<std::uint64_t>(seed);
  choice<DType>(v, {"dtype", "Storage of weights and activations; masters stay float32."}, c.dtype,
                {{"float32", DType::f32}, {"bfloat16", DType::bf16}});
  choice<Recompute>(v,
                    {"recompute",
                     "block: keep only each block's input, and run it again in backward; less "
                     "memory for about a third more time."},
                    c.recompute, {{"none", Recompute::none}, {"block", Recompute::block}});
  choice<DeviceChoice>(v,
                       {"device",
                        "auto: CUDA where this program and every rank have it, else the CPU, with "
                        "a line that says so."},
                       c.device,
                       {{"auto", DeviceChoice::automatic},
                        {"cpu", DeviceChoice::cpu},
                        {"cuda", DeviceChoice::cuda}});
  v.integer({"max_skipped_steps", "Non-finite steps in a row before the run stops."},
            c.max_skipped_steps, kCountOrNone);
  v.integer({"threads", "Threads a rank on the CPU; 0: cores / ranks of this host, at least 1.",
             Need::optional, "num_threads"},
            c.threads, {0, 4096});
  v.real({"peak_gflops",
          "Peak of one rank that MFU is measured against, GFLOP/s; 0: measured at "
          "the start."},
         c.peak_gflops, kNotNegative);
}

void visit(FieldVisitor& v, OptimizerConfig& c) {
  v.real({"lr", "Peak learning rate.", Need::optional, "learning_rate"}, c.lr, kNotNegative);
  v.real({"min_lr", "Learning rate at the end of cosine and wsd."}, c.min_lr, kNotNegative);
  v.real({"beta1", "Decay of the gradient's mean."}, c.beta1, kBelowOne);
  v.real({"beta2", "Decay of the gradient's mean square."}, c.beta2, kBelowOne);
  v.real({"eps", "Added to the root of the mean square."}, c.eps, kPositive);
  v.real({"weight_decay", "Decoupled; not on norms, biases, A_log, D and dt bias."}, c.weight_decay,
         kNotNegative);
  v.real({"grad_clip", "Largest global norm of the gradient; 0: off.", Need::optional,
          "max_grad_norm"},
         c.grad_clip, kNotNegative);
  choice<ScheduleKind>(v,
                       {"schedule",
                        "After the warm-up: constant, cosine to min_lr, or wsd "
                        "(constant, then a linear decay to min_lr).",
                        Need::optional, "lr_scheduler_type"},
                       c.schedule,
                       {{"constant", ScheduleKind::constant},
                        {"cosine", ScheduleKind::cosine},
                        {"wsd", ScheduleKind::wsd}});
  v.integer({"warmup_steps", "Steps of the linear warm-up.", Need::optional, "warmup"},
            c.warmup_steps, kCountOrNone);
  v.integer({"decay_steps", "Steps of wsd's final decay; 0: a tenth of the run."}, c.decay_steps,
            kCountOrNone);
}

void visit(FieldVisitor& v, ParallelConfig& c) {
  v.integer({"tp", "Tensor parallel ranks.", Need::optional, "tensor_parallel_size"}, c.tp,
            kDegree);
  v.integer({"pp", "Pipeline stages.", Need::optional, "pipeline_parallel_size"}, c.pp, kDegree);
  v.integer({"cp", "Context parallel ranks.", Need::optional, "context_parallel_size"}, c.cp,
            kDegree);
  v.integer({"ep", "Expert parallel ranks.", Need::optional, "expert_parallel_size"}, c.ep,
            kDegree);
  v.boolean({"sequence_parallel",
             "With tp: the residual stream is split over tokens between regions of tensor "
             "parallelism, at the same traffic and less memory."},
            c.sequence_parallel);
  v.integer({"zero",
             "What data-parallel ranks share out instead of copying: 1 optimizer state, 2 also "
             "gradients, 3 also parameters.",
             Need::optional, "zero_stage"},
            c.zero, {0, 3});
  v.integer({"pp_chunks", "Chunks of layers a stage; above 1: the interleaved schedule.",
             Need::optional, "virtual_pipeline_model_parallel_size"},
            c.pp_chunks, kDegree);
  v.text(
      {"pp_layers", "Layers of each chunk in order, such as \"5 3\"; empty: as even as it goes."},
      c.pp_layers);
  choice<Deterministic>(
      v,
      {"deterministic",
       "mesh: the same mesh gives the same bits. tree: gradients are summed pairwise, so that any "
       "power of two of data-parallel ranks gives the same bits for the same global batch."},
      c.deterministic, {{"mesh", Deterministic::mesh}, {"tree", Deterministic::tree}});
  v.real({"timeout_seconds", "Longest wait for another rank before the job ends; 0: no limit."},
         c.timeout_seconds, kNotNegative);
  v.boolean({"check_collectives",
             "Compare what ranks ask for before each collective; slow, for hunting bugs."},
            c.check_collectives);
}

void visit(FieldVisitor& v, CheckpointConfig& c) {
  v.integer(
      {"every", "Steps between checkpoints; 0: only at the end.", Need::optional, "save_interval"},
      c.every, kCountOrNone);
  v.integer({"keep", "Newest checkpoints that stay on disk.", Need::optional, "keep_last"}, c.keep,
            kCount);
}

void visit(FieldVisitor& v, EvalConfig& c) {
  v.integer(
      {"every", "Steps between evaluations; 0: only at the end.", Need::optional, "eval_interval"},
      c.every, kCountOrNone);
  v.integer({"max_tokens", "Tokens of each source in one evaluation, at most."}, c.max_tokens,
            kCount);
}

void visit(FieldVisitor& v, LogConfig& c) {
  v.integer({"every", "Steps between lines.", Need::optional, "log_interval"}, c.every, kCount);
  v.boolean({"tensorboard", "Write TensorBoard event files into the run directory."},
            c.tensorboard);
}

template <class Section>
void section(FieldVisitor& v, const Key& key, Section& value) {
  v.begin_section(key);
  visit(v, value);
  v.end_section();
}

}  // namespace

std::string in_words(IntegerRange range) {
  const bool open = range.high == std::numeric_limits<std::int64_t>::max();
  return open ? fmt::format("at least {}", range.low)
              : fmt::format("from {} to {}", range.low, range.high);
}

std::string in_words(RealRange range) {
  std::string words =
      fmt::format("{} {}", range.low_end == End::open ? "above" : "at least", range.low);
  if (std::isfinite(range.high)) {
    words +=
        fmt::format(" and {} {}", range.high_end == End::open ? "below" : "at most", range.high);
  }
  return words;
}

bool contains(IntegerRange range, std::int64_t value) {
  return value >= range.low && value <= range.high;
}

bool contains(RealRange range, double value) {
  if (!std::isfinite(value)) return false;
  const bool low = range.low_end == End::open ? value > range.low : value >= range.low;
  const bool high = range.high_end == End::open ? value < range.high : value <= range.high;
  return low && high;
}

void visit_fields(FieldVisitor& v, RunConfig& c) {
  v.text({"run_dir", "Directory of this run: checkpoints, metrics, logs. A run resumes from it.",
          Need::for_run, "output_dir"},
         c.run_dir);
  v.begin_section({"model", "Sizes and switches of the model."});
  visit_model(v, c.model);
  v.end_section();
  section(v, {"data", "What the model reads."}, c.data);
  section(v, {"train", "The loop."}, c.train);
  section(v, {"optimizer", "AdamW and its learning rate."}, c.optimizer);
  section(v, {"parallel", "How ranks share the work; the rest is data parallel."}, c.parallel);
  section(v, {"checkpoint", "Saved states."}, c.checkpoint);
  section(v, {"eval", "Validation loss of each source."}, c.eval);
  section(v, {"log", "What a run tells."}, c.log);
}

}  // namespace jamba::config

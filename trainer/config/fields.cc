#include "trainer/config/fields.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "trainer/model/model_limits.h"

namespace jamba::config {

namespace {

constexpr IntegerRange kCount{.low = 1};
constexpr IntegerRange kCountOrNone{.low = 0};
constexpr RealRange kNotNegative{};
constexpr RealRange kPositive{.low_end = End::open};
constexpr RealRange kBelowOne{.high = 1, .high_end = End::open};

/// One value of an enum and its name in files.
template <class E>
struct Named {
  std::string_view name;
  E value;
};

template <class E>
void choice(FieldVisitor& visitor, const Key& key, E& value,
            std::initializer_list<Named<E>> named) {
  std::vector<std::string_view> names;
  std::size_t index = 0;
  for (const Named<E>& one : named) {
    if (one.value == value) index = names.size();
    names.push_back(one.name);
  }
  visitor.choice(key, index, names);
  value = (named.begin() + index)->value;
}

void visit(FieldVisitor& v, ModelConfig& c) {
  constexpr IntegerRange kWidth{1, kMaxModelDim};
  constexpr IntegerRange kWidthOrDefault{0, kMaxModelDim};
  v.integer({"vocab_size", "Tokens in the vocabulary; the tokenizer must have no more.",
             Need::always, "num_tokens"},
            c.vocab_size, {1, kMaxVocabulary});
  v.integer({"hidden_size", "Width of the residual stream.", Need::always, "d_model"},
            c.hidden_size, kWidth);
  v.integer({"intermediate_size", "Width of a dense SwiGLU feed-forward.", Need::always, "d_ff"},
            c.intermediate_size, kWidth);
  v.integer({"expert_intermediate_size", "Width of one expert; 0: intermediate_size.",
             Need::optional, "moe_intermediate_size"},
            c.expert_intermediate_size, kWidthOrDefault);
  v.integer({"num_hidden_layers", "Layers; each is a mixer and a feed-forward.", Need::always,
             "num_layers"},
            c.num_hidden_layers, {1, kMaxLayers});
  v.text({"layer_pattern",
          "One word a layer, repeated over the stack: A attention or M Mamba, then e for a mixture "
          "of experts, as in \"M Me M Me A Me M Me\". Empty: the periods and offsets decide."},
         c.layer_pattern);
  v.integer({"attn_layer_period", "Layer i is attention where i % period == offset."},
            c.attn_layer_period, {1, kMaxLayers});
  v.integer({"attn_layer_offset", "Below attn_layer_period."}, c.attn_layer_offset,
            {0, kMaxLayers - 1});
  v.integer({"expert_layer_period", "Layer i has experts where i % period == offset."},
            c.expert_layer_period, {1, kMaxLayers});
  v.integer({"expert_layer_offset", "Below expert_layer_period."}, c.expert_layer_offset,
            {0, kMaxLayers - 1});

  v.integer({"num_attention_heads", "Query heads; only models with attention need it.",
             Need::optional, "num_heads"},
            c.num_attention_heads, {0, kMaxHeads});
  v.integer({"num_key_value_heads", "Key and value heads; divides num_attention_heads.",
             Need::optional, "num_kv_heads"},
            c.num_key_value_heads, {0, kMaxHeads});
  v.integer({"head_dim", "Width of a head; 0: hidden_size / num_attention_heads."}, c.head_dim,
            {0, kMaxHeadDim});
  v.boolean({"rope", "Rotary positions in attention; Jamba has none.", Need::optional, "use_rope"},
            c.rope);
  v.real({"rope_theta", "Base of the rotary frequencies."}, c.rope_theta, kPositive);

  v.integer({"mamba_d_state", "State numbers a channel."}, c.mamba_d_state, {1, kMaxMambaState});
  v.integer({"mamba_d_conv", "Taps of the causal convolution, tokens."}, c.mamba_d_conv,
            {1, kMaxConvTaps});
  v.integer({"mamba_expand", "Mamba's inner width, in units of hidden_size."}, c.mamba_expand,
            {1, kMaxMambaExpand});
  v.integer({"mamba_dt_rank", "Rank of the step size projection; 0: ceil(hidden_size / 16)."},
            c.mamba_dt_rank, kWidthOrDefault);
  v.boolean({"mamba_conv_bias", "Bias of the convolution."}, c.mamba_conv_bias);
  v.boolean({"mamba_proj_bias", "Bias of Mamba's input and output projections."},
            c.mamba_proj_bias);
  v.boolean({"mamba_inner_norms", "RMSNorm on dt, B and C. Off: the original Mamba."},
            c.mamba_inner_norms);

  v.integer({"num_experts", "Experts of a mixture; 1: dense feed-forwards everywhere.",
             Need::optional, "num_local_experts"},
            c.num_experts, {1, kMaxExperts});
  v.integer({"num_experts_per_tok", "Experts that each token visits.", Need::optional, "top_k"},
            c.num_experts_per_tok, {1, kMaxExperts});
  v.boolean({"renormalize_topk", "Scale the weights of the chosen experts to sum 1.",
             Need::optional, "norm_topk_prob"},
            c.renormalize_topk);
  choice<AuxLossKind>(v,
                      {"aux_loss",
                       "Load balancing loss: routing pooled over all mixtures (Hugging Face), or a "
                       "mean of one loss a layer."},
                      c.aux_loss,
                      {{"none", AuxLossKind::none},
                       {"per_layer", AuxLossKind::per_layer},
                       {"pooled", AuxLossKind::pooled}});
  choice<AuxLossScope>(
      v,
      {"aux_loss_scope",
       "Tokens whose routing is averaged: of one sequence (the same loss for any "
       "batch split), or of the whole microbatch (Hugging Face)."},
      c.aux_loss_scope,
      {{"sequence", AuxLossScope::sequence}, {"microbatch", AuxLossScope::microbatch}});
  v.real({"router_aux_loss_coef", "Factor of the load balancing loss."}, c.router_aux_loss_coef,
         kNotNegative);
  v.real({"router_z_loss_coef", "Factor of the router z-loss; 0: off."}, c.router_z_loss_coef,
         kNotNegative);
  v.real({"router_jitter", "Router inputs are scaled by U(1 - jitter, 1 + jitter) in training."},
         c.router_jitter, kBelowOne);
  v.real({"activation_loss_coef", "Factor of the mean square of layer outputs; 0: off."},
         c.activation_loss_coef, kNotNegative);

  v.real({"rms_norm_eps", "Added to the mean square in every norm."}, c.rms_norm_eps, kPositive);
  v.boolean({"tie_word_embeddings", "The head is the embedding, transposed."},
            c.tie_word_embeddings);
  v.integer({"pad_token_id", "Its embedding gets no gradient from lookups; -1: none."},
            c.pad_token_id, {-1, kMaxVocabulary - 1});
  choice<InitKind>(v,
                   {"init",
                    "Starting values: as Hugging Face's Jamba, or the original Mamba's for "
                    "the mixers."},
                   c.init, {{"hugging_face", InitKind::hugging_face}, {"mamba", InitKind::mamba}});
  v.real({"initializer_range", "Standard deviation of matrices at the start."}, c.initializer_range,
         kPositive);
}

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
  v.integer({"micro_batch_size", "Sequences a rank in one forward.", Need::optional,
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
  v.integer({"max_skipped_steps", "Non-finite steps in a row before the run stops."},
            c.max_skipped_steps, kCountOrNone);
  v.integer({"threads", "Threads a rank; 0: cores / ranks of this host, at least 1.",
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
  v.integer({"tp", "Tensor parallel ranks.", Need::optional, "tensor_parallel_size"}, c.tp, kCount);
  v.integer({"pp", "Pipeline stages.", Need::optional, "pipeline_parallel_size"}, c.pp, kCount);
  v.integer({"cp", "Context parallel ranks.", Need::optional, "context_parallel_size"}, c.cp,
            kCount);
  v.integer({"ep", "Expert parallel ranks.", Need::optional, "expert_parallel_size"}, c.ep, kCount);
  v.real({"bucket_mb", "Gradients are reduced in pieces of this size, MB (10^6 bytes)."},
         c.bucket_mb, kPositive);
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
  section(v, {"model", "Sizes and switches of the model."}, c.model);
  section(v, {"data", "What the model reads."}, c.data);
  section(v, {"train", "The loop."}, c.train);
  section(v, {"optimizer", "AdamW and its learning rate."}, c.optimizer);
  section(v, {"parallel", "How ranks share the work; the rest is data parallel."}, c.parallel);
  section(v, {"checkpoint", "Saved states."}, c.checkpoint);
  section(v, {"eval", "Validation loss of each source."}, c.eval);
  section(v, {"log", "What a run tells."}, c.log);
}

}  // namespace jamba::config

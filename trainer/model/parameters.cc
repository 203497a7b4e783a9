#include "trainer/model/parameters.h"

namespace jamba {

namespace {

/// Collects specs with a name prefix.
class SpecList {
 public:
  explicit SpecList(std::vector<ParameterSpec>& out) : out_(out) {}
  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }

  void matrix(const std::string& name, std::vector<std::int64_t> shape,
              InitRule init = InitRule::normal) {
    out_.push_back({prefix_ + name, std::move(shape), init, true, false, true});
  }
  void router(std::vector<std::int64_t> shape) {
    out_.push_back({prefix_ + "feed_forward.router.weight", std::move(shape), InitRule::normal,
                    true, true, true});
  }
  void conv(std::vector<std::int64_t> shape) {
    out_.push_back(
        {prefix_ + "mamba.conv1d.weight", std::move(shape), InitRule::conv, true, true, false});
  }
  void embedding(std::vector<std::int64_t> shape, bool tied) {
    // The tied output head is the first to write this gradient; lookups add to it.
    out_.push_back(
        {"model.embed_tokens.weight", std::move(shape), InitRule::embedding, true, false, tied});
  }
  void plain_float32(const std::string& name, std::vector<std::int64_t> shape, InitRule init) {
    out_.push_back({prefix_ + name, std::move(shape), init, false, true, false});
  }

 private:
  std::vector<ParameterSpec>& out_;
  std::string prefix_;
};

void add_attention(SpecList& list, const ModelConfig& c) {
  const std::int64_t q = c.num_attention_heads * c.attention_head_dim();
  const std::int64_t kv = c.num_key_value_heads * c.attention_head_dim();
  list.matrix("self_attn.q_proj.weight", {q, c.hidden_size});
  list.matrix("self_attn.k_proj.weight", {kv, c.hidden_size});
  list.matrix("self_attn.v_proj.weight", {kv, c.hidden_size});
  list.matrix("self_attn.o_proj.weight", {c.hidden_size, q});
}

void add_mamba(SpecList& list, const ModelConfig& c) {
  const std::int64_t inner = c.inner_size(), rank = c.dt_rank(), state = c.mamba_d_state;
  const InitRule linear_bias = InitRule::zeros;
  list.matrix("mamba.in_proj.weight", {2 * inner, c.hidden_size}, InitRule::mamba_linear);
  if (c.mamba_proj_bias) list.plain_float32("mamba.in_proj.bias", {2 * inner}, linear_bias);
  list.conv({inner, c.mamba_d_conv});
  if (c.mamba_conv_bias) {
    list.plain_float32("mamba.conv1d.bias", {inner},
                       c.init == InitKind::mamba ? InitRule::conv : InitRule::zeros);
  }
  list.matrix("mamba.x_proj.weight", {rank + 2 * state, inner}, InitRule::mamba_linear);
  if (c.mamba_inner_norms) {
    list.plain_float32("mamba.dt_layernorm.weight", {rank}, InitRule::ones);
    list.plain_float32("mamba.b_layernorm.weight", {state}, InitRule::ones);
    list.plain_float32("mamba.c_layernorm.weight", {state}, InitRule::ones);
  }
  list.matrix("mamba.dt_proj.weight", {inner, rank}, InitRule::dt_weight);
  list.plain_float32("mamba.dt_proj.bias", {inner}, InitRule::dt_bias);
  list.plain_float32("mamba.A_log", {inner, state}, InitRule::a_log);
  list.plain_float32("mamba.D", {inner}, InitRule::ones);
  list.matrix("mamba.out_proj.weight", {c.hidden_size, inner}, InitRule::mamba_out);
  if (c.mamba_proj_bias) list.plain_float32("mamba.out_proj.bias", {c.hidden_size}, linear_bias);
}

void add_feed_forward(SpecList& list, const ModelConfig& c, FfnKind kind) {
  if (kind == FfnKind::dense) {
    list.matrix("feed_forward.gate_up_proj.weight", {2 * c.intermediate_size, c.hidden_size});
    list.matrix("feed_forward.down_proj.weight", {c.hidden_size, c.intermediate_size});
    return;
  }
  const std::int64_t size = c.expert_size();
  list.router({c.num_experts, c.hidden_size});
  list.matrix("feed_forward.experts.gate_up_proj", {c.num_experts, 2 * size, c.hidden_size});
  list.matrix("feed_forward.experts.down_proj", {c.num_experts, c.hidden_size, size});
}

/// Gap-free start of the next parameter: 16 floats are 64 bytes.
std::int64_t align(std::int64_t elements) { return (elements + 15) / 16 * 16; }

}  // namespace

std::int64_t ParameterSpec::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

std::vector<ParameterSpec> parameter_specs(const ModelConfig& c) {
  std::vector<ParameterSpec> out;
  SpecList list(out);
  list.embedding({c.vocab_size, c.hidden_size}, c.tie_word_embeddings);
  const std::vector<LayerKind> layers = c.layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    list.set_prefix(fmt::format("model.layers.{}.", i));
    list.plain_float32("input_layernorm.weight", {c.hidden_size}, InitRule::ones);
    if (layers[i].mixer == MixerKind::attention) {
      add_attention(list, c);
    } else {
      add_mamba(list, c);
    }
    list.plain_float32("pre_ff_layernorm.weight", {c.hidden_size}, InitRule::ones);
    add_feed_forward(list, c, layers[i].ffn);
  }
  list.set_prefix("");
  list.plain_float32("model.final_layernorm.weight", {c.hidden_size}, InitRule::ones);
  if (!c.tie_word_embeddings) list.matrix("lm_head.weight", {c.vocab_size, c.hidden_size});
  return out;
}

Parameters::Parameters(const ModelConfig& config, DType compute_dtype, Gradients gradients)
    : compute_dtype_(compute_dtype) {
  for (ParameterSpec& spec : parameter_specs(config)) {
    entries_.push_back({std::move(spec), size_, {}, {}, {}});
    size_ += align(entries_.back().spec.numel());
  }
  weights_ = Buffer(size_ * dtype_bytes(DType::f32));
  if (gradients == Gradients::allocate) gradients_ = Buffer(size_ * dtype_bytes(DType::f32));

  for (Entry& entry : entries_) {
    const std::span<const std::int64_t> shape(entry.spec.shape);
    float* weight = static_cast<float*>(weights_.data()) + entry.begin;
    entry.value = Tensor(weight, DType::f32, shape);
    if (gradients == Gradients::allocate) {
      entry.grad = Tensor(static_cast<float*>(gradients_.data()) + entry.begin, DType::f32, shape);
    }
    if (compute_dtype == DType::bf16 && !entry.spec.keep_float32) {
      const std::int64_t n = entry.spec.numel();
      entry.value = Tensor(weight, DType::bf16, shape);
      entry.rest = Tensor(reinterpret_cast<std::uint16_t*>(weight) + align(n), DType::u16, {n});
    }
    index_.emplace(entry.spec.name, static_cast<std::size_t>(&entry - entries_.data()));
  }
}

const Parameters::Entry& Parameters::entry(const std::string& name) const {
  const auto it = index_.find(name);
  JAMBA_CHECK(it != index_.end(), "no parameter '{}'", name);
  return entries_[it->second];
}

Weight Parameters::weight(const std::string& name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) return {};
  return {entries_[it->second].value, entries_[it->second].grad};
}

}  // namespace jamba

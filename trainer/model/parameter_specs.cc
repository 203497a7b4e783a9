#include "trainer/model/parameter_specs.h"

#include <fmt/format.h>

namespace jamba {

namespace {

using Shape = std::vector<std::int64_t>;

constexpr CutDim kWhole{};

/// Collects the specs of one part after the other.
class SpecList {
 public:
  explicit SpecList(std::vector<ParameterSpec>& out) : out_(out) {}
  void begin_part(std::int64_t part, std::string prefix) {
    part_ = part;
    prefix_ = std::move(prefix);
  }

  ParameterSpec& matrix(const std::string& name, Shape shape, CutDim tp,
                        InitRule init = InitRule::normal) {
    ParameterSpec& spec = add(name, std::move(shape), tp, init);
    spec.weight_decay = true;
    spec.gradient_overwritten = true;
    return spec;
  }
  /// Of a product whose result is in the compute dtype: the bias is in the dtype of the result.
  void product_bias(const std::string& name, Shape shape, CutDim tp) {
    add(name, std::move(shape), tp, InitRule::zeros);
  }
  ParameterSpec& plain_float32(const std::string& name, Shape shape, CutDim tp, InitRule init) {
    ParameterSpec& spec = add(name, std::move(shape), tp, init);
    spec.keep_float32 = true;
    return spec;
  }
  void norm(const std::string& name, std::int64_t size) {
    plain_float32(name, {size}, kWhole, InitRule::ones).sees_own_tokens = true;
  }

 private:
  ParameterSpec& add(const std::string& name, Shape shape, CutDim tp, InitRule init) {
    ParameterSpec& spec = out_.emplace_back();
    spec.name = prefix_ + name;
    spec.shape = std::move(shape);
    spec.tp = tp;
    spec.init = init;
    spec.part = part_;
    return spec;
  }

  std::vector<ParameterSpec>& out_;
  std::int64_t part_ = 0;
  std::string prefix_;
};

void add_attention(SpecList& list, const ModelConfig& c) {
  const std::int64_t q = c.num_attention_heads * c.attention_head_dim();
  const std::int64_t kv = c.num_key_value_heads * c.attention_head_dim();
  const CutDim rows{0, c.attention_head_dim()}, cols{1, c.attention_head_dim()};
  list.matrix("self_attn.q_proj.weight", {q, c.hidden_size}, rows);
  list.matrix("self_attn.k_proj.weight", {kv, c.hidden_size}, rows);
  list.matrix("self_attn.v_proj.weight", {kv, c.hidden_size}, rows);
  list.matrix("self_attn.o_proj.weight", {c.hidden_size, q}, cols);
}

void add_mamba(SpecList& list, const ModelConfig& c) {
  const std::int64_t inner = c.inner_size(), rank = c.dt_rank(), state = c.mamba_d_state;
  const CutDim channels{0}, in_channels{1};
  list.matrix("mamba.in_proj.weight", {2, inner, c.hidden_size}, CutDim{1}, InitRule::mamba_linear);
  if (c.mamba_proj_bias) {
    list.product_bias("mamba.in_proj.bias", {2, inner}, CutDim{1});
  }
  list.plain_float32("mamba.conv1d.weight", {inner, c.mamba_d_conv}, channels, InitRule::conv)
      .weight_decay = true;
  if (c.mamba_conv_bias) {
    list.plain_float32("mamba.conv1d.bias", {inner}, channels,
                       c.init == InitKind::mamba ? InitRule::conv : InitRule::zeros);
  }
  list.matrix("mamba.x_proj.weight", {rank + 2 * state, inner}, in_channels,
              InitRule::mamba_linear);
  if (c.mamba_inner_norms) {
    list.plain_float32("mamba.dt_layernorm.weight", {rank}, kWhole, InitRule::ones);
    list.plain_float32("mamba.b_layernorm.weight", {state}, kWhole, InitRule::ones);
    list.plain_float32("mamba.c_layernorm.weight", {state}, kWhole, InitRule::ones);
  }
  list.matrix("mamba.dt_proj.weight", {inner, rank}, channels, InitRule::dt_weight);
  list.plain_float32("mamba.dt_proj.bias", {inner}, channels, InitRule::dt_bias);
  list.plain_float32("mamba.A_log", {inner, state}, channels, InitRule::a_log);
  list.plain_float32("mamba.D", {inner}, channels, InitRule::ones);
  list.matrix("mamba.out_proj.weight", {c.hidden_size, inner}, in_channels, InitRule::mamba_out);
  if (c.mamba_proj_bias) {
    list.plain_float32("mamba.out_proj.bias", {c.hidden_size}, kWhole, InitRule::zeros);
  }
}

void add_feed_forward(SpecList& list, const ModelConfig& c, FfnKind kind) {
  const std::int64_t hidden = c.hidden_size;
  if (kind == FfnKind::dense) {
    list.matrix("feed_forward.gate_up_proj.weight", {2, c.intermediate_size, hidden}, CutDim{1});
    list.matrix("feed_forward.down_proj.weight", {hidden, c.intermediate_size}, CutDim{1});
    return;
  }
  const std::int64_t size = c.expert_size(), experts = c.num_experts;
  list.matrix("feed_forward.router.weight", {experts, hidden}, kWhole).keep_float32 = true;
  list.matrix("feed_forward.experts.gate_up_proj", {experts, 2, size, hidden}, CutDim{2}).expert =
      true;
  list.matrix("feed_forward.experts.down_proj", {experts, hidden, size}, CutDim{2}).expert = true;
}

}  // namespace

std::int64_t ParameterSpec::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

std::vector<ParameterSpec> parameter_specs(const ModelConfig& c) {
  std::vector<ParameterSpec> out;
  SpecList list(out);
  list.begin_part(kEmbeddingPart, "");
  // The tied output head is the first to write this gradient; lookups add to it.
  list.matrix("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, CutDim{0},
              InitRule::embedding)
      .gradient_overwritten = c.tie_word_embeddings;
  const std::vector<LayerKind> layers = c.layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    list.begin_part(layer_part(static_cast<std::int64_t>(i)), fmt::format("model.layers.{}.", i));
    list.norm("input_layernorm.weight", c.hidden_size);
    layers[i].mixer == MixerKind::attention ? add_attention(list, c) : add_mamba(list, c);
    list.norm("pre_ff_layernorm.weight", c.hidden_size);
    add_feed_forward(list, c, layers[i].ffn);
  }
  list.begin_part(head_part(c), "");
  list.norm("model.final_layernorm.weight", c.hidden_size);
  if (!c.tie_word_embeddings) {
    list.matrix("lm_head.weight", {c.vocab_size, c.hidden_size}, CutDim{0});
  }
  return out;
}

}  // namespace jamba

#include "trainer/checkpoint/hf_names.h"

#include <fmt/format.h>

namespace jamba {

namespace {

using Shape = std::vector<std::int64_t>;

std::int64_t product(const Shape& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

/// Collects tensors whose names share a prefix.
class TensorList {
 public:
  explicit TensorList(std::vector<HfTensor>& out) : out_(out) {}
  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }

  /// A tensor that is a parameter of its own under the same name.
  void same(const std::string& name, const Shape& shape) { reshaped(name, shape, shape); }
  void reshaped(const std::string& name, const Shape& shape, const Shape& param_shape) {
    part(name, shape, name, param_shape, 0);
  }
  /// Part number `index` of a parameter made of equal parts.
  void part(const std::string& name, const Shape& shape, const std::string& param,
            const Shape& param_shape, std::int64_t index) {
    const std::int64_t count = product(shape);
    out_.push_back({prefix_ + name, shape, prefix_ + param, index * count, count, param_shape});
  }

 private:
  std::vector<HfTensor>& out_;
  std::string prefix_;
};

void add_attention(TensorList& list, const ModelConfig& c) {
  const std::int64_t q = c.num_attention_heads * c.attention_head_dim();
  const std::int64_t kv = c.num_key_value_heads * c.attention_head_dim();
  list.same("self_attn.q_proj.weight", {q, c.hidden_size});
  list.same("self_attn.k_proj.weight", {kv, c.hidden_size});
  list.same("self_attn.v_proj.weight", {kv, c.hidden_size});
  list.same("self_attn.o_proj.weight", {c.hidden_size, q});
}

void add_mamba(TensorList& list, const ModelConfig& c) {
  const std::int64_t inner = c.inner_size(), rank = c.dt_rank(), state = c.mamba_d_state;
  list.reshaped("mamba.in_proj.weight", {2 * inner, c.hidden_size}, {2, inner, c.hidden_size});
  if (c.mamba_proj_bias) list.reshaped("mamba.in_proj.bias", {2 * inner}, {2, inner});
  list.reshaped("mamba.conv1d.weight", {inner, 1, c.mamba_d_conv}, {inner, c.mamba_d_conv});
  if (c.mamba_conv_bias) list.same("mamba.conv1d.bias", {inner});
  list.same("mamba.x_proj.weight", {rank + 2 * state, inner});
  if (c.mamba_inner_norms) {
    list.same("mamba.dt_layernorm.weight", {rank});
    list.same("mamba.b_layernorm.weight", {state});
    list.same("mamba.c_layernorm.weight", {state});
  }
  list.same("mamba.dt_proj.weight", {inner, rank});
  list.same("mamba.dt_proj.bias", {inner});
  list.same("mamba.A_log", {inner, state});
  list.same("mamba.D", {inner});
  list.same("mamba.out_proj.weight", {c.hidden_size, inner});
  if (c.mamba_proj_bias) list.same("mamba.out_proj.bias", {c.hidden_size});
}

void add_dense(TensorList& list, const ModelConfig& c) {
  const std::int64_t h = c.hidden_size, f = c.intermediate_size;
  const std::string fused = "feed_forward.gate_up_proj.weight";
  list.part("feed_forward.gate_proj.weight", {f, h}, fused, {2, f, h}, 0);
  list.part("feed_forward.up_proj.weight", {f, h}, fused, {2, f, h}, 1);
  list.same("feed_forward.down_proj.weight", {h, f});
}

void add_experts(TensorList& list, const ModelConfig& c) {
  const std::int64_t e = c.num_experts, h = c.hidden_size, f = c.expert_size();
  const std::string gate_up = "feed_forward.experts.gate_up_proj";
  const std::string down = "feed_forward.experts.down_proj";
  list.same("feed_forward.router.weight", {e, h});
  for (std::int64_t i = 0; i < e; ++i) {
    const std::string expert = fmt::format("feed_forward.experts.{}.", i);
    list.part(expert + "gate_proj.weight", {f, h}, gate_up, {e, 2, f, h}, 2 * i);
    list.part(expert + "up_proj.weight", {f, h}, gate_up, {e, 2, f, h}, 2 * i + 1);
    list.part(expert + "down_proj.weight", {h, f}, down, {e, h, f}, i);
  }
}

}  // namespace

std::vector<HfTensor> hf_tensors(const ModelConfig& c) {
  std::vector<HfTensor> out;
  TensorList list(out);
  list.same("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  const std::vector<LayerKind> layers = c.layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    list.set_prefix(fmt::format("model.layers.{}.", i));
    list.same("input_layernorm.weight", {c.hidden_size});
    layers[i].mixer == MixerKind::attention ? add_attention(list, c) : add_mamba(list, c);
    list.same("pre_ff_layernorm.weight", {c.hidden_size});
    layers[i].ffn == FfnKind::moe ? add_experts(list, c) : add_dense(list, c);
  }
  list.set_prefix("");
  list.same("model.final_layernorm.weight", {c.hidden_size});
  if (!c.tie_word_embeddings) list.same("lm_head.weight", {c.vocab_size, c.hidden_size});
  return out;
}

}  // namespace jamba

#include "trainer/checkpoint/hf_config.h"

#include "trainer/checkpoint/posix_file.h"
#include "trainer/checkpoint/strict_json.h"

#include "kernels/core/errors.h"

namespace jamba {

namespace {

constexpr std::int64_t kMaxConfigBytes = 1 << 20;

/// Reads over Jamba-v0.1's defaults: an absent key leaves the value as it is.
class HfReader {
 public:
  explicit HfReader(JsonObject& object) : object_(object) {}

  void size(const char* key, std::int64_t& value, std::int64_t low = 1) {
    if (object_.has(key)) value = object_.integer_from(key, low);
  }
  void number(const char* key, double& value) {
    if (object_.has(key)) value = object_.number(key);
  }
  void flag(const char* key, bool& value) {
    if (object_.has(key)) value = object_.boolean(key);
  }
  void expect_word(const char* key, const std::string& word) {
    if (!object_.has(key)) return;
    const std::string& got = object_.string(key);
    if (got != word) object_.fail(key, fmt::format("expected '{}', got '{}'", word, got));
  }

 private:
  JsonObject& object_;
};

ModelConfig jamba_v01() {
  ModelConfig c;
  c.vocab_size = 65536;
  c.hidden_size = 4096;
  c.intermediate_size = 14336;
  c.num_hidden_layers = 32;
  c.num_attention_heads = 32;
  c.num_key_value_heads = 8;
  return c;
}

void read_attention(JsonObject& object, HfReader& hf, ModelConfig& c) {
  hf.size("num_attention_heads", c.num_attention_heads);
  if (object.has("num_key_value_heads") && object.missing_or_null("num_key_value_heads")) {
    c.num_key_value_heads = c.num_attention_heads;
  } else {
    hf.size("num_key_value_heads", c.num_key_value_heads);
  }
  if (!object.missing_or_null("head_dim")) hf.size("head_dim", c.head_dim);
}

void read_mamba(JsonObject& object, HfReader& hf, ModelConfig& c) {
  hf.size("mamba_d_state", c.mamba_d_state);
  hf.size("mamba_d_conv", c.mamba_d_conv);
  hf.size("mamba_expand", c.mamba_expand);
  if (object.has("mamba_dt_rank") && object.raw("mamba_dt_rank").is_string()) {
    hf.expect_word("mamba_dt_rank", "auto");
  } else {
    hf.size("mamba_dt_rank", c.mamba_dt_rank);
  }
  hf.flag("mamba_conv_bias", c.mamba_conv_bias);
  hf.flag("mamba_proj_bias", c.mamba_proj_bias);
  hf.flag("mamba_inner_layernorms", c.mamba_inner_norms);
}

void read_experts(JsonObject& object, HfReader& hf, ModelConfig& c) {
  hf.size("num_local_experts", c.num_experts);
  hf.size("num_experts", c.num_experts);
  if (object.has("num_local_experts") && object.integer("num_local_experts") != c.num_experts) {
    object.fail("num_local_experts", fmt::format("differs from num_experts ({})", c.num_experts));
  }
  hf.size("num_experts_per_tok", c.num_experts_per_tok);
  hf.number("router_aux_loss_coef", c.router_aux_loss_coef);
  bool balancing_loss = false;
  hf.flag("output_router_logits", balancing_loss);
  c.aux_loss = balancing_loss ? AuxLossKind::pooled : AuxLossKind::none;
  c.aux_loss_scope = AuxLossScope::microbatch;
}

void expect_sound(const ModelConfig& c, const std::string& path) {
  std::string faults;
  for (const ConfigFault& fault : check(c)) {
    faults += fmt::format("{}{}: key '{}': {}", faults.empty() ? "" : "\n", path, fault.key,
                          fault.message);
  }
  if (!faults.empty()) throw DataError(faults);
}

}  // namespace

ModelConfig read_hf_config(const std::string& path) {
  const nlohmann::json json =
      parse_strict_json(read_file(path, Links::follow, kMaxConfigBytes), path);
  JsonObject object(json, path);
  HfReader hf(object);
  hf.expect_word("model_type", "jamba");
  hf.expect_word("hidden_act", "silu");
  ModelConfig c = jamba_v01();
  hf.size("vocab_size", c.vocab_size);
  hf.size("hidden_size", c.hidden_size);
  hf.size("intermediate_size", c.intermediate_size);
  hf.size("num_hidden_layers", c.num_hidden_layers);
  hf.size("attn_layer_period", c.attn_layer_period);
  hf.size("attn_layer_offset", c.attn_layer_offset, 0);
  hf.size("expert_layer_period", c.expert_layer_period);
  hf.size("expert_layer_offset", c.expert_layer_offset, 0);
  read_attention(object, hf, c);
  read_mamba(object, hf, c);
  read_experts(object, hf, c);
  hf.number("rms_norm_eps", c.rms_norm_eps);
  hf.number("initializer_range", c.initializer_range);
  hf.flag("tie_word_embeddings", c.tie_word_embeddings);
  if (object.has("pad_token_id") && object.missing_or_null("pad_token_id")) {
    c.pad_token_id = -1;
  } else {
    hf.size("pad_token_id", c.pad_token_id, 0);
  }
  expect_sound(c, path);
  return c;
}

}  // namespace jamba

#include "trainer/checkpoint/model_json.h"

#include <type_traits>
#include <utility>

#include "kernels/core/errors.h"
#include "trainer/checkpoint/strict_json.h"

namespace jamba {

namespace {

using Json = nlohmann::ordered_json;

template <class Enum>
using Words = std::vector<std::pair<Enum, const char*>>;

const Words<InitKind>& words(InitKind) {
  static const Words<InitKind> kWords = {{InitKind::hugging_face, "hugging_face"},
                                         {InitKind::mamba, "mamba"}};
  return kWords;
}

const Words<AuxLossKind>& words(AuxLossKind) {
  static const Words<AuxLossKind> kWords = {{AuxLossKind::none, "none"},
                                            {AuxLossKind::per_layer, "per_layer"},
                                            {AuxLossKind::pooled, "pooled"}};
  return kWords;
}

const Words<AuxLossScope>& words(AuxLossScope) {
  static const Words<AuxLossScope> kWords = {{AuxLossScope::sequence, "sequence"},
                                             {AuxLossScope::microbatch, "microbatch"}};
  return kWords;
}

/// Calls f(key, field) for every field, in the order of the struct.
template <class Config, class F>
void visit_fields(Config& c, F&& f) {
  f("vocab_size", c.vocab_size);
  f("hidden_size", c.hidden_size);
  f("intermediate_size", c.intermediate_size);
  f("expert_intermediate_size", c.expert_intermediate_size);
  f("num_hidden_layers", c.num_hidden_layers);
  f("layer_pattern", c.layer_pattern);
  f("attn_layer_period", c.attn_layer_period);
  f("attn_layer_offset", c.attn_layer_offset);
  f("expert_layer_period", c.expert_layer_period);
  f("expert_layer_offset", c.expert_layer_offset);
  f("num_attention_heads", c.num_attention_heads);
  f("num_key_value_heads", c.num_key_value_heads);
  f("head_dim", c.head_dim);
  f("rope", c.rope);
  f("rope_theta", c.rope_theta);
  f("mamba_d_state", c.mamba_d_state);
  f("mamba_d_conv", c.mamba_d_conv);
  f("mamba_expand", c.mamba_expand);
  f("mamba_dt_rank", c.mamba_dt_rank);
  f("mamba_conv_bias", c.mamba_conv_bias);
  f("mamba_proj_bias", c.mamba_proj_bias);
  f("mamba_inner_norms", c.mamba_inner_norms);
  f("num_experts", c.num_experts);
  f("num_experts_per_tok", c.num_experts_per_tok);
  f("renormalize_topk", c.renormalize_topk);
  f("aux_loss", c.aux_loss);
  f("aux_loss_scope", c.aux_loss_scope);
  f("router_aux_loss_coef", c.router_aux_loss_coef);
  f("router_z_loss_coef", c.router_z_loss_coef);
  f("router_jitter", c.router_jitter);
  f("expert_capacity_factor", c.expert_capacity_factor);
  f("force_balanced_routing", c.force_balanced_routing);
  f("activation_loss_coef", c.activation_loss_coef);
  f("rms_norm_eps", c.rms_norm_eps);
  f("tie_word_embeddings", c.tie_word_embeddings);
  f("pad_token_id", c.pad_token_id);
  f("init", c.init);
  f("initializer_range", c.initializer_range);
}

template <class T>
Json to_json_value(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    for (const auto& [kind, word] : words(value)) {
      if (kind == value) return word;
    }
    throw LogicError("an enum value without a word");
  } else {
    return value;
  }
}

template <class T>
void read_field(JsonObject& object, const char* key, T& value) {
  if constexpr (std::is_enum_v<T>) {
    const std::string& got = object.string(key);
    for (const auto& [kind, word] : words(value)) {
      if (got == word) {
        value = kind;
        return;
      }
    }
    object.fail(key, fmt::format("'{}' is not one of its words", got));
  } else if constexpr (std::is_same_v<T, bool>) {
    value = object.boolean(key);
  } else if constexpr (std::is_same_v<T, double>) {
    value = object.number(key);
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    value = object.integer(key);
  } else {
    value = object.string(key);
  }
}

/// The fields that decide the function, with defaults resolved to what they mean.
Json architecture(const ModelConfig& c) {
  const std::string layers = c.layer_map();
  const bool attention = layers.find('A') != std::string::npos;
  const bool mamba = layers.find('M') != std::string::npos;
  const bool experts = layers.find('e') != std::string::npos;
  Json j;
  j["vocab_size"] = c.vocab_size;
  j["hidden_size"] = c.hidden_size;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["layers"] = layers;
  j["intermediate_size"] = c.intermediate_size;
  if (attention) {
    j["num_attention_heads"] = c.num_attention_heads;
    j["num_key_value_heads"] = c.num_key_value_heads;
    j["head_dim"] = c.attention_head_dim();
    j["rope"] = c.rope;
    if (c.rope) j["rope_theta"] = c.rope_theta;
  }
  if (mamba) {
    j["mamba_d_state"] = c.mamba_d_state;
    j["mamba_d_conv"] = c.mamba_d_conv;
    j["mamba_expand"] = c.mamba_expand;
    j["mamba_dt_rank"] = c.dt_rank();
    j["mamba_conv_bias"] = c.mamba_conv_bias;
    j["mamba_proj_bias"] = c.mamba_proj_bias;
    j["mamba_inner_norms"] = c.mamba_inner_norms;
  }
  if (experts) {
    j["num_experts"] = c.num_experts;
    j["num_experts_per_tok"] = c.num_experts_per_tok;
    j["expert_intermediate_size"] = c.expert_size();
    j["renormalize_topk"] = c.renormalize_topk;
  }
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  return j;
}

}  // namespace

std::string model_to_json(const ModelConfig& config) {
  Json json;
  visit_fields(config,
               [&](const char* key, const auto& value) { json[key] = to_json_value(value); });
  return json.dump();
}

ModelConfig model_from_json(std::string_view text, const std::string& where) {
  const nlohmann::json json = parse_strict_json(text, where);
  JsonObject object(json, where);
  ModelConfig config;
  visit_fields(config, [&](const char* key, auto& value) { read_field(object, key, value); });
  object.expect_all_read();
  for (const ConfigFault& fault : check(config)) object.fail(fault.key, fault.message);
  return config;
}

std::vector<std::string> architecture_diff(const ModelConfig& a, const ModelConfig& b) {
  const Json left = architecture(a), right = architecture(b);
  std::vector<std::string> diff;
  const auto text = [](const Json& json, const std::string& key) {
    return json.contains(key) ? json[key].dump() : std::string("absent");
  };
  for (const auto& item : left.items()) {
    const std::string l = item.value().dump(), r = text(right, item.key());
    if (l != r) diff.push_back(fmt::format("{}: {} against {}", item.key(), l, r));
  }
  for (const auto& item : right.items()) {
    if (!left.contains(item.key())) {
      diff.push_back(fmt::format("{}: absent against {}", item.key(), item.value().dump()));
    }
  }
  return diff;
}

}  // namespace jamba

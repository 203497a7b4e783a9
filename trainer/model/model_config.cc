#include "trainer/model/model_config.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string_view>

#include "kernels/core/errors.h"
#include "trainer/model/model_limits.h"

namespace jamba {

namespace {

LayerKind parse_layer(std::string_view token) {
  const bool mixer_ok = token.front() == 'A' || token.front() == 'M';
  if (!mixer_ok || token.size() > 2 || (token.size() == 2 && token.back() != 'e')) {
    throw ConfigError(
        fmt::format("'{}' is no layer of a layer pattern; write A or M, followed by e for a "
                    "mixture of experts, "
                    "for example \"M Me M Me A Me M Me\"",
                    token));
  }
  return {token.front() == 'A' ? MixerKind::attention : MixerKind::mamba,
          token.size() == 2 ? FfnKind::moe : FfnKind::dense};
}

/// The layers that a pattern names once. Errors: ConfigError.
std::vector<LayerKind> parse_pattern(std::string_view pattern) {
  const auto is_space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  std::vector<LayerKind> layers;
  while (true) {
    const auto begin = std::find_if_not(pattern.begin(), pattern.end(), is_space);
    if (begin == pattern.end()) break;
    const auto end = std::find_if(begin, pattern.end(), is_space);
    layers.push_back(parse_layer({begin, end}));
    pattern = {end, pattern.end()};
  }
  if (layers.empty()) throw ConfigError("a layer pattern of blanks names no layer");
  return layers;
}

/// Collects faults; each rule guards on its operands, so that one mistake is one fault.
class Faults {
 public:
  template <class... Args>
  void require(bool holds, const char* key, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds) list.push_back({key, fmt::format(format, std::forward<Args>(args)...)});
  }
  /// Returns whether the value is in range.
  bool range(const char* key, std::int64_t value, std::int64_t low, std::int64_t high) {
    const bool holds = value >= low && value <= high;
    require(holds, key, "must be from {} to {}, got {}", low, high, value);
    return holds;
  }
  void not_negative(const char* key, double value) {
    require(std::isfinite(value) && value >= 0, key, "must be at least 0, got {}", value);
  }
  std::vector<ConfigFault> list;
};

void check_period(Faults& faults, const char* period_key, const char* offset_key,
                  std::int64_t period, std::int64_t offset) {
  if (!faults.range(period_key, period, 1, kMaxLayers)) return;
  faults.require(offset >= 0 && offset < period, offset_key,
                 "must be at least 0 and below {} ({}), got {}", period_key, period, offset);
}

/// Returns whether layers() may be asked.
bool check_layers(Faults& faults, const ModelConfig& c) {
  const std::size_t before = faults.list.size();
  faults.range("num_hidden_layers", c.num_hidden_layers, 1, kMaxLayers);
  if (c.layer_pattern.empty()) {
    check_period(faults, "attn_layer_period", "attn_layer_offset", c.attn_layer_period,
                 c.attn_layer_offset);
    check_period(faults, "expert_layer_period", "expert_layer_offset", c.expert_layer_period,
                 c.expert_layer_offset);
    return faults.list.size() == before;
  }
  try {
    const auto length = static_cast<std::int64_t>(parse_pattern(c.layer_pattern).size());
    faults.require(c.num_hidden_layers < 1 || c.num_hidden_layers % length == 0, "layer_pattern",
                   "names {} layers, which do not divide num_hidden_layers ({})", length,
                   c.num_hidden_layers);
  } catch (const ConfigError& error) {
    faults.list.push_back({"layer_pattern", error.what()});
  }
  return faults.list.size() == before;
}

void check_attention(Faults& faults, const ModelConfig& c) {
  const bool heads = faults.range("num_attention_heads", c.num_attention_heads, 1, kMaxHeads);
  const bool kv_heads = faults.range("num_key_value_heads", c.num_key_value_heads, 1, kMaxHeads);
  if (heads && kv_heads) {
    faults.require(c.num_attention_heads % c.num_key_value_heads == 0, "num_key_value_heads",
                   "{} does not divide num_attention_heads ({})", c.num_key_value_heads,
                   c.num_attention_heads);
  }
  if (!faults.range("head_dim", c.head_dim, 0, kMaxHeadDim)) return;
  bool known = heads && c.hidden_size >= 1;
  if (known && c.head_dim == 0) {
    known = c.hidden_size % c.num_attention_heads == 0;
    faults.require(known, "num_attention_heads",
                   "{} does not divide hidden_size ({}); change one, or give head_dim",
                   c.num_attention_heads, c.hidden_size);
  }
  faults.require(!c.rope || !known || c.attention_head_dim() % 2 == 0, "rope",
                 "needs an even head dimension, got {}", known ? c.attention_head_dim() : 0);
  faults.require(!c.rope || c.rope_theta > 0, "rope_theta", "must be above 0, got {}",
                 c.rope_theta);
}

void check_mamba(Faults& faults, const ModelConfig& c) {
  faults.range("mamba_d_state", c.mamba_d_state, 1, kMaxMambaState);
  faults.range("mamba_d_conv", c.mamba_d_conv, 1, kMaxConvTaps);
  faults.range("mamba_expand", c.mamba_expand, 1, kMaxMambaExpand);
  faults.range("mamba_dt_rank", c.mamba_dt_rank, 0, kMaxModelDim);
}

void check_experts(Faults& faults, const ModelConfig& c) {
  faults.range("expert_intermediate_size", c.expert_intermediate_size, 0, kMaxModelDim);
  faults.not_negative("router_aux_loss_coef", c.router_aux_loss_coef);
  faults.not_negative("router_z_loss_coef", c.router_z_loss_coef);
  faults.require(c.router_jitter >= 0 && c.router_jitter < 1, "router_jitter",
                 "must be at least 0 and below 1, got {}", c.router_jitter);
  faults.not_negative("expert_capacity_factor", c.expert_capacity_factor);
  if (!faults.range("num_experts", c.num_experts, 1, kMaxExperts) || c.num_experts == 1) return;
  faults.require(c.num_experts_per_tok >= 1 && c.num_experts_per_tok <= c.num_experts,
                 "num_experts_per_tok", "must be from 1 to num_experts ({}), got {}", c.num_experts,
                 c.num_experts_per_tok);
}

std::int64_t count_mamba(const ModelConfig& c) {
  const std::int64_t inner = c.inner_size(), rank = c.dt_rank(), state = c.mamba_d_state;
  std::int64_t n = 2 * inner * c.hidden_size + c.hidden_size * inner;  // in_proj, out_proj
  if (c.mamba_proj_bias) n += 2 * inner + c.hidden_size;
  n += inner * c.mamba_d_conv + (c.mamba_conv_bias ? inner : 0);
  n += (rank + 2 * state) * inner;  // x_proj
  n += inner * rank + inner;        // dt_proj
  n += inner * state + inner;       // A_log, D
  return n + (c.mamba_inner_norms ? rank + 2 * state : 0);
}

/// The part of count_mamba that is matrix products.
std::int64_t count_mamba_matrices(const ModelConfig& c) {
  const std::int64_t inner = c.inner_size(), rank = c.dt_rank();
  return 3 * inner * c.hidden_size + (rank + 2 * c.mamba_d_state) * inner + inner * rank;
}

std::int64_t count_attention(const ModelConfig& c) {
  const std::int64_t heads = 2 * c.num_attention_heads + 2 * c.num_key_value_heads;
  return heads * c.attention_head_dim() * c.hidden_size;
}

}  // namespace

std::int64_t ModelConfig::dt_rank() const {
  return mamba_dt_rank > 0 ? mamba_dt_rank : (hidden_size + 15) / 16;
}

std::int64_t ModelConfig::attention_head_dim() const {
  if (head_dim > 0) return head_dim;
  JAMBA_CHECK(num_attention_heads > 0, "num_attention_heads is {}", num_attention_heads);
  return hidden_size / num_attention_heads;
}

std::int64_t ModelConfig::expert_size() const {
  return expert_intermediate_size > 0 ? expert_intermediate_size : intermediate_size;
}

std::vector<LayerKind> ModelConfig::layers() const {
  std::vector<LayerKind> pattern;
  if (!layer_pattern.empty()) pattern = parse_pattern(layer_pattern);
  JAMBA_CHECK(!pattern.empty() || (attn_layer_period > 0 && expert_layer_period > 0),
              "layer periods are {} and {}", attn_layer_period, expert_layer_period);
  std::vector<LayerKind> out;
  for (std::int64_t i = 0; i < num_hidden_layers; ++i) {
    LayerKind kind;
    if (pattern.empty()) {
      kind.mixer =
          i % attn_layer_period == attn_layer_offset ? MixerKind::attention : MixerKind::mamba;
      kind.ffn = i % expert_layer_period == expert_layer_offset ? FfnKind::moe : FfnKind::dense;
    } else {
      kind = pattern[static_cast<std::size_t>(i) % pattern.size()];
    }
    if (num_experts == 1) kind.ffn = FfnKind::dense;
    out.push_back(kind);
  }
  return out;
}

std::string ModelConfig::layer_map() const {
  std::string map;
  for (const LayerKind kind : layers()) {
    map += kind.mixer == MixerKind::attention ? 'A' : 'M';
    if (kind.ffn == FfnKind::moe) map += 'e';
  }
  return map;
}

std::vector<ConfigFault> check(const ModelConfig& c) {
  Faults faults;
  faults.range("vocab_size", c.vocab_size, 1, kMaxVocabulary);
  faults.range("hidden_size", c.hidden_size, 1, kMaxModelDim);
  faults.range("intermediate_size", c.intermediate_size, 1, kMaxModelDim);
  bool attention = true;
  bool mamba = true;
  if (check_layers(faults, c)) {
    const std::vector<LayerKind> layers = c.layers();
    const auto has = [&](MixerKind mixer) {
      return std::any_of(layers.begin(), layers.end(),
                         [&](LayerKind kind) { return kind.mixer == mixer; });
    };
    attention = has(MixerKind::attention);
    mamba = has(MixerKind::mamba);
  }
  if (attention) check_attention(faults, c);
  if (mamba) check_mamba(faults, c);
  check_experts(faults, c);
  faults.not_negative("activation_loss_coef", c.activation_loss_coef);
  faults.require(c.rms_norm_eps > 0, "rms_norm_eps", "must be above 0, got {}", c.rms_norm_eps);
  faults.require(c.initializer_range > 0, "initializer_range", "must be above 0, got {}",
                 c.initializer_range);
  faults.require(c.pad_token_id >= -1 && (c.vocab_size < 1 || c.pad_token_id < c.vocab_size),
                 "pad_token_id", "must be -1 (none) or a token below vocab_size ({}), got {}",
                 c.vocab_size, c.pad_token_id);
  return std::move(faults.list);
}

ParameterCount count_parameters(const ModelConfig& c) {
  const std::int64_t expert = 3 * c.hidden_size * c.expert_size();
  std::int64_t idle = 0;
  ParameterCount n;
  n.embedding = (c.tie_word_embeddings ? 1 : 2) * c.vocab_size * c.hidden_size;
  n.norms = c.hidden_size;
  for (const LayerKind kind : c.layers()) {
    n.norms += 2 * c.hidden_size;
    (kind.mixer == MixerKind::attention ? n.attention : n.mamba) +=
        kind.mixer == MixerKind::attention ? count_attention(c) : count_mamba(c);
    if (kind.ffn == FfnKind::dense) {
      n.dense_ffn += 3 * c.hidden_size * c.intermediate_size;
    } else {
      n.experts += c.num_experts * expert;
      n.router += c.num_experts * c.hidden_size;
      idle += (c.num_experts - c.num_experts_per_tok) * expert;
    }
  }
  n.total = n.embedding + n.attention + n.mamba + n.dense_ffn + n.experts + n.router + n.norms;
  n.active = n.total - idle;
  return n;
}

std::int64_t num_mixtures(const ModelConfig& c) {
  const std::vector<LayerKind> layers = c.layers();
  return std::count_if(layers.begin(), layers.end(),
                       [](const LayerKind& kind) { return kind.ffn == FfnKind::moe; });
}

double train_flops_per_token(const ModelConfig& c, std::int64_t seq) {
  std::int64_t matrices = c.vocab_size * c.hidden_size;  // the head; embedding lookups are free
  std::int64_t attention_width = 0;
  for (const LayerKind kind : c.layers()) {
    if (kind.mixer == MixerKind::attention) {
      matrices += count_attention(c);
      attention_width += c.attention_head_dim() * c.num_attention_heads;
    } else {
      matrices += count_mamba_matrices(c);
    }
    if (kind.ffn == FfnKind::dense) {
      matrices += 3 * c.hidden_size * c.intermediate_size;
    } else {
      matrices += c.num_experts * c.hidden_size;  // router
      matrices += c.num_experts_per_tok * 3 * c.hidden_size * c.expert_size();
    }
  }
  const double mean_keys = static_cast<double>(seq) / 2;
  return 6.0 * static_cast<double>(matrices) +
         12.0 * static_cast<double>(attention_width) * mean_keys;
}

}  // namespace jamba

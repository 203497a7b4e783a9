#pragma once
// What a Jamba model is: sizes, layer pattern, and the switches that ablations turn.

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/dtype.h"

namespace jamba {

enum class MixerKind { attention, mamba };
enum class FfnKind { dense, moe };
enum class InitKind { hugging_face, mamba };
enum class AuxLossKind { none, per_layer, pooled };
enum class AuxLossScope { sequence, microbatch };

/// One layer of the stack: a mixer, then a feed-forward.
struct LayerKind {
  MixerKind mixer;
  FfnKind ffn;
  friend bool operator==(const LayerKind&, const LayerKind&) = default;
};

/// Field names follow Hugging Face's JambaConfig where it has the field.
/// Units: sizes in elements; losses' coefficients are dimensionless.
struct ModelConfig {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t expert_intermediate_size = 0;  // 0: intermediate_size
  std::int64_t num_hidden_layers = 0;

  /// Explicit layer pattern, such as "M Me M Me A Me M Me": a token a layer, A attention or
  /// M Mamba, then e for a mixture of experts. Repeats until num_hidden_layers. Empty: the periods
  /// and offsets below decide.
  std::string layer_pattern;
  std::int64_t attn_layer_period = 8;
  std::int64_t attn_layer_offset = 4;
  std::int64_t expert_layer_period = 2;
  std::int64_t expert_layer_offset = 1;

  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;  // 0: hidden_size / num_attention_heads
  bool rope = false;
  double rope_theta = 10000.0;

  std::int64_t mamba_d_state = 16;
  std::int64_t mamba_d_conv = 4;
  std::int64_t mamba_expand = 2;
  std::int64_t mamba_dt_rank = 0;  // 0: ceil(hidden_size / 16)
  bool mamba_conv_bias = true;
  bool mamba_proj_bias = false;
  bool mamba_inner_norms = true;

  std::int64_t num_experts = 16;  // 1: dense everywhere
  std::int64_t num_experts_per_tok = 2;
  bool renormalize_topk = false;
  AuxLossKind aux_loss = AuxLossKind::pooled;
  /// Tokens whose routing is averaged before the loss's product: sequence gives the same loss for
  /// any microbatch size and mesh; microbatch is Hugging Face's definition.
  AuxLossScope aux_loss_scope = AuxLossScope::sequence;
  double router_aux_loss_coef = 0.001;
  double router_z_loss_coef = 0.0;
  double router_jitter = 0.0;
  /// Copies of tokens that an expert takes from one rank's microbatch, as a multiple of the mean;
  /// the last ones are dropped. 0: no limit, nothing is dropped.
  double expert_capacity_factor = 0.0;
  bool force_balanced_routing = false;  // experts take turns; for benchmarks
  double activation_loss_coef = 0.0;    // arXiv:2408.12570: mean square of layer outputs

  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  std::int64_t pad_token_id = 0;  // -1: none. Its embedding row gets no gradient from lookups
  InitKind init = InitKind::hugging_face;
  double initializer_range = 0.02;

  // Derived.
  std::int64_t inner_size() const { return mamba_expand * hidden_size; }
  std::int64_t dt_rank() const;
  std::int64_t attention_head_dim() const;
  std::int64_t expert_size() const;
  /// Errors: ConfigError if layer_pattern has another form.
  std::vector<LayerKind> layers() const;
  /// "MMeMMeAMeMMe", for people.
  std::string layer_map() const;
};

/// Every broken rule of a model config, in words; empty if it is sound.
/// Each entry is (key, message), for example ("num_key_value_heads", "3 does not divide ...").
struct ConfigFault {
  std::string key;
  std::string message;
};
std::vector<ConfigFault> check(const ModelConfig&);

/// Parameters by part of the model. `active` counts k experts of each mixture.
struct ParameterCount {
  std::int64_t total = 0;
  std::int64_t active = 0;
  std::int64_t embedding = 0;
  std::int64_t attention = 0;
  std::int64_t mamba = 0;
  std::int64_t dense_ffn = 0;
  std::int64_t experts = 0;
  std::int64_t router = 0;
  std::int64_t norms = 0;
};
ParameterCount count_parameters(const ModelConfig&);

/// Layers whose feed-forward is a mixture of experts.
std::int64_t num_mixtures(const ModelConfig&);

/// Matrix-product FLOPs of forward and backward for one token, attention scores included:
/// 6 per active matrix parameter, and 12 * head_dim * heads * (seq / 2) an attention layer.
double train_flops_per_token(const ModelConfig&, std::int64_t seq);

}  // namespace jamba

#include "trainer/config/field_tools.h"
#include "trainer/model/model_limits.h"

namespace jamba::config {

void visit_model(FieldVisitor& v, ModelConfig& c) {
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
  v.real({"expert_capacity_factor",
          "Copies of tokens that an expert takes from one microbatch of a rank, over the mean; the "
          "rest are dropped and counted. 0: no limit.",
          Need::optional, "moe_expert_capacity_factor"},
         c.expert_capacity_factor, kNotNegative);
  v.boolean(
      {"force_balanced_routing", "Experts take turns whatever the router says; for benchmarks."},
      c.force_balanced_routing);
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

}  // namespace jamba::config

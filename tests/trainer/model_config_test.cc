#include "trainer/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Jamba-v0.1 of arXiv:2403.19887: 52B parameters, 12B active.
ModelConfig jamba_52b() {
  ModelConfig c;
  c.vocab_size = 65536;
  c.hidden_size = 4096;
  c.intermediate_size = 14336;
  c.num_hidden_layers = 32;
  c.num_attention_heads = 32;
  c.num_key_value_heads = 8;
  return c;
}

ModelConfig tiny() {
  ModelConfig c;
  c.vocab_size = 11;
  c.hidden_size = 8;
  c.intermediate_size = 12;
  c.num_hidden_layers = 8;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.num_experts = 4;
  return c;
}

auto fault(const std::string& key, const std::string& words) {
  return AllOf(Field(&ConfigFault::key, key), Field(&ConfigFault::message, HasSubstr(words)));
}

TEST(ModelConfig, DerivesSizesThatAreNotGiven) {
  ModelConfig c = tiny();
  c.hidden_size = 40;
  EXPECT_EQ(c.inner_size(), 80);
  EXPECT_EQ(c.dt_rank(), 3);  // ceil(40 / 16)
  EXPECT_EQ(c.attention_head_dim(), 20);
  EXPECT_EQ(c.expert_size(), 12);
  c.mamba_dt_rank = 7;
  c.head_dim = 6;
  c.expert_intermediate_size = 5;
  EXPECT_EQ(c.dt_rank(), 7);
  EXPECT_EQ(c.attention_head_dim(), 6);
  EXPECT_EQ(c.expert_size(), 5);
}

TEST(ModelConfig, PlacesAttentionAndExpertsByPeriodAndOffset) {
  EXPECT_EQ(tiny().layer_map(), "MMeMMeAMeMMe");
  ModelConfig c = tiny();
  c.attn_layer_period = 3;
  c.attn_layer_offset = 1;
  c.expert_layer_period = 1;
  c.expert_layer_offset = 0;
  c.num_hidden_layers = 5;
  EXPECT_EQ(c.layer_map(), "MeAeMeMeAe");
}

TEST(ModelConfig, HasNoAttentionWhereTheOffsetLiesBeyondTheLastLayer) {
  ModelConfig c = tiny();
  c.num_hidden_layers = 4;
  EXPECT_EQ(c.layer_map(), "MMeMMe");
}

TEST(ModelConfig, RepeatsAnExplicitPattern) {
  ModelConfig c = tiny();
  c.layer_pattern = " M  Ae ";
  c.num_hidden_layers = 4;
  EXPECT_EQ(c.layer_map(), "MAeMAe");
  EXPECT_THAT(check(c), IsEmpty());
}

TEST(ModelConfig, IsDenseEverywhereWithOneExpert) {
  ModelConfig c = tiny();
  c.num_experts = 1;
  EXPECT_EQ(c.layer_map(), "MMMMAMMM");
  c.layer_pattern = "Me Ae";
  EXPECT_EQ(c.layer_map(), "MAMAMAMA");
  EXPECT_THAT(check(c), IsEmpty());  // two experts a token of one expert: no fault, nothing routes
}

TEST(ModelConfig, RefusesAPatternOfAnotherForm) {
  for (const char* pattern : {"M X", "Mx", "MeM", "e", "a", "  "}) {
    ModelConfig c = tiny();
    c.layer_pattern = pattern;
    EXPECT_THROW(c.layers(), ConfigError) << pattern;
    EXPECT_THAT(check(c), ElementsAre(fault("layer_pattern", "layer"))) << pattern;
  }
}

TEST(ModelConfig, CountsThePapers52BModelExactly) {
  const ModelConfig c = jamba_52b();
  const ParameterCount n = count_parameters(c);
  EXPECT_EQ(n.total, 51570323328);
  EXPECT_EQ(n.active, 12110311296);
  EXPECT_EQ(n.active, n.total - 16ll * (16 - 2) * 3 * 4096 * 14336);
  EXPECT_EQ(n.experts, 16ll * 16 * 3 * 4096 * 14336);            // 45.10e9
  EXPECT_EQ(n.dense_ffn, 16ll * 3 * 4096 * 14336);               // 2.82e9
  EXPECT_NEAR(static_cast<double>(n.mamba), 28 * 105.3e6, 1e7);  // 2.95e9
  EXPECT_EQ(n.attention, 4ll * (2 * 4096 * 4096 + 2 * 1024 * 4096));
  EXPECT_EQ(n.embedding, 2ll * 65536 * 4096);
  EXPECT_EQ(n.router, 16ll * 16 * 4096);
  EXPECT_EQ(n.norms, 65ll * 4096);
  EXPECT_EQ(n.total,
            n.embedding + n.attention + n.mamba + n.dense_ffn + n.experts + n.router + n.norms);
}

TEST(ModelConfig, CountsEverySwitchOfTheMixer) {
  ModelConfig c = tiny();
  c.layer_pattern = "M";
  c.num_hidden_layers = 1;
  // inner 16, dt_rank 1, state 16, taps 4; the inner norms hold 1 + 16 + 16 weights.
  const std::int64_t plain = 32 * 8 + 8 * 16 + 16 * 4 + 33 * 16 + 16 + 16 + 16 * 16 + 16;
  EXPECT_EQ(count_parameters(c).mamba, plain + 16 + 33);
  c.mamba_conv_bias = false;
  EXPECT_EQ(count_parameters(c).mamba, plain + 33);
  c.mamba_inner_norms = false;
  EXPECT_EQ(count_parameters(c).mamba, plain);
  c.mamba_proj_bias = true;
  EXPECT_EQ(count_parameters(c).mamba, plain + 32 + 8);
}

TEST(ModelConfig, CountsTiedEmbeddingsOnce) {
  ModelConfig c = tiny();
  EXPECT_EQ(count_parameters(c).embedding, 2 * 11 * 8);
  c.tie_word_embeddings = true;
  EXPECT_EQ(count_parameters(c).embedding, 11 * 8);
}

TEST(ModelConfig, CountsTheFlopsOfThePaperModel) {
  const ModelConfig c = jamba_52b();
  const double scores = 4 * 12.0 * 32 * 128 * 4096 / 2;  // 0.40e9 at 4096 tokens
  EXPECT_DOUBLE_EQ(train_flops_per_token(c, 4096) - train_flops_per_token(c, 0), scores);
  // 6 N of the active parameters without the embedding lookup; biases, norms, taps, A_log and D
  // are in N but in no matrix product.
  const double all = 6.0 * static_cast<double>(count_parameters(c).active - 65536ll * 4096);
  EXPECT_LT(train_flops_per_token(c, 0), all);
  EXPECT_GT(train_flops_per_token(c, 0), 0.999 * all);
}

TEST(ModelConfig, CountsTheLmHeadOfATiedModelInFlops) {
  ModelConfig tied = tiny();
  tied.tie_word_embeddings = true;
  EXPECT_EQ(train_flops_per_token(tied, 16), train_flops_per_token(tiny(), 16));
}

TEST(ModelConfig, AcceptsThePaperModelAndTheTinyOne) {
  EXPECT_THAT(check(jamba_52b()), IsEmpty());
  EXPECT_THAT(check(tiny()), IsEmpty());
}

TEST(ModelConfig, NeedsNoHeadsWithoutAttention) {
  ModelConfig c = tiny();
  c.layer_pattern = "M";
  c.num_attention_heads = 0;
  c.num_key_value_heads = 0;
  EXPECT_THAT(check(c), IsEmpty());
}

struct Broken {
  const char* name;
  void (*change)(ModelConfig&);
  const char* key;
  const char* words;
};

class BrokenModelConfig : public ::testing::TestWithParam<Broken> {};

TEST_P(BrokenModelConfig, IsOneFaultInWords) {
  ModelConfig c = tiny();
  GetParam().change(c);
  EXPECT_THAT(check(c), ElementsAre(fault(GetParam().key, GetParam().words)));
}

const Broken kBroken[] = {
    {"NoVocabulary", [](ModelConfig& c) { c.vocab_size = 0; }, "vocab_size",
     "from 1 to 2147483648, got 0"},
    {"NoWidth", [](ModelConfig& c) { c.hidden_size = 0; }, "hidden_size", "got 0"},
    {"HugeWidth", [](ModelConfig& c) { c.hidden_size = 1ll << 40; }, "hidden_size", "got 1099511"},
    {"NoFfn", [](ModelConfig& c) { c.intermediate_size = -3; }, "intermediate_size", "got -3"},
    {"NoLayers", [](ModelConfig& c) { c.num_hidden_layers = 0; }, "num_hidden_layers", "got 0"},
    {"AttentionPeriod", [](ModelConfig& c) { c.attn_layer_period = 0; }, "attn_layer_period",
     "got 0"},
    {"AttentionOffset", [](ModelConfig& c) { c.attn_layer_offset = 8; }, "attn_layer_offset",
     "below attn_layer_period (8), got 8"},
    {"ExpertPeriod", [](ModelConfig& c) { c.expert_layer_period = -1; }, "expert_layer_period",
     "got -1"},
    {"ExpertOffset", [](ModelConfig& c) { c.expert_layer_offset = 2; }, "expert_layer_offset",
     "below expert_layer_period (2), got 2"},
    {"PatternLength", [](ModelConfig& c) { c.layer_pattern = "M M A"; }, "layer_pattern",
     "names 3 layers, which do not divide num_hidden_layers (8)"},
    {"Heads", [](ModelConfig& c) { c.num_attention_heads = 0; }, "num_attention_heads", "got 0"},
    {"HeadsOfWidth", [](ModelConfig& c) { c.num_attention_heads = 3; }, "num_attention_heads",
     "3 does not divide hidden_size (8)"},
    {"KvHeads", [](ModelConfig& c) { c.num_attention_heads = 4, c.num_key_value_heads = 3; },
     "num_key_value_heads", "3 does not divide num_attention_heads (4)"},
    {"NoKvHeads", [](ModelConfig& c) { c.num_key_value_heads = 0; }, "num_key_value_heads",
     "got 0"},
    {"HeadDim", [](ModelConfig& c) { c.head_dim = -1; }, "head_dim", "got -1"},
    {"OddRope", [](ModelConfig& c) { c.rope = true, c.head_dim = 3; }, "rope",
     "needs an even head dimension, got 3"},
    {"RopeTheta", [](ModelConfig& c) { c.rope = true, c.rope_theta = 0; }, "rope_theta", "got 0"},
    {"State", [](ModelConfig& c) { c.mamba_d_state = 0; }, "mamba_d_state", "got 0"},
    {"Taps", [](ModelConfig& c) { c.mamba_d_conv = 9; }, "mamba_d_conv", "from 1 to 8, got 9"},
    {"Expand", [](ModelConfig& c) { c.mamba_expand = 0; }, "mamba_expand", "got 0"},
    {"DtRank", [](ModelConfig& c) { c.mamba_dt_rank = -1; }, "mamba_dt_rank", "got -1"},
    {"NoExperts", [](ModelConfig& c) { c.num_experts = 0; }, "num_experts", "got 0"},
    {"TopK", [](ModelConfig& c) { c.num_experts_per_tok = 5; }, "num_experts_per_tok",
     "from 1 to num_experts (4), got 5"},
    {"ExpertWidth", [](ModelConfig& c) { c.expert_intermediate_size = -1; },
     "expert_intermediate_size", "got -1"},
    {"AuxCoefficient", [](ModelConfig& c) { c.router_aux_loss_coef = -0.1; },
     "router_aux_loss_coef", "got -0.1"},
    {"ZCoefficient", [](ModelConfig& c) { c.router_z_loss_coef = 0.0 / 0.0; }, "router_z_loss_coef",
     "nan"},
    {"Jitter", [](ModelConfig& c) { c.router_jitter = 1; }, "router_jitter", "below 1, got 1"},
    {"Capacity", [](ModelConfig& c) { c.expert_capacity_factor = -0.5; }, "expert_capacity_factor",
     "at least 0, got -0.5"},
    {"InfiniteCapacity", [](ModelConfig& c) { c.expert_capacity_factor = 1.0 / 0.0; },
     "expert_capacity_factor", "inf"},
    {"ActivationLoss", [](ModelConfig& c) { c.activation_loss_coef = -1; }, "activation_loss_coef",
     "got -1"},
    {"Eps", [](ModelConfig& c) { c.rms_norm_eps = 0; }, "rms_norm_eps", "above 0"},
    {"Range", [](ModelConfig& c) { c.initializer_range = 0; }, "initializer_range", "above 0"},
    {"PadToken", [](ModelConfig& c) { c.pad_token_id = 11; }, "pad_token_id",
     "below vocab_size (11), got 11"},
};

INSTANTIATE_TEST_SUITE_P(Rules, BrokenModelConfig, ::testing::ValuesIn(kBroken),
                         [](const auto& rule) { return std::string(rule.param.name); });

TEST(ModelConfig, ReportsEveryFaultAtOnce) {
  ModelConfig c = tiny();
  c.vocab_size = 0;
  c.attn_layer_offset = 9;
  c.num_experts_per_tok = 0;
  EXPECT_THAT(check(c), ElementsAre(fault("vocab_size", ""), fault("attn_layer_offset", ""),
                                    fault("num_experts_per_tok", "")));
}

}  // namespace
}  // namespace jamba

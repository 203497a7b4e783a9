// Hugging Face's names, config and directories.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "tests/trainer/checkpoint/checkpoint_support.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/hf_names.h"
#include "trainer/checkpoint/import.h"
#include "trainer/checkpoint/model_json.h"
#include "trainer/checkpoint/safetensors.h"

namespace jamba::test {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Directories of whole models made by Hugging Face transformers; a checkout may lack them.
std::vector<std::string> fixtures() {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("../shared/fixtures", error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("op_")) paths.push_back(entry.path().string());  // single operations
  }
  return paths;
}

using Shapes = std::map<std::string, std::vector<std::int64_t>>;

TEST(HfNames, AreThoseOfTransformersFiles) {
  const auto paths = fixtures();
  if (paths.empty()) GTEST_SKIP() << "no ../shared/fixtures beside this checkout";
  for (const std::string& path : paths) {
    SCOPED_TRACE(path);
    Shapes ours, theirs;
    for (const HfTensor& tensor : hf_tensors(read_hf_config(path + "/config.json"))) {
      EXPECT_TRUE(ours.emplace(tensor.name, tensor.shape).second) << tensor.name;
    }
    const SafetensorsFile file(path + "/model.safetensors");
    for (const SafetensorsEntry& entry : file.entries()) {
      theirs.emplace(entry.name, entry.shape);
    }
    EXPECT_EQ(ours, theirs);
  }
}

std::int64_t product(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

TEST(HfNames, PartsFillEveryParameterInOrder) {
  ModelConfig config = small_model();
  config.expert_intermediate_size = 7;
  std::map<std::string, std::int64_t> filled;
  Shapes shapes;
  std::int64_t total = 0;
  for (const HfTensor& tensor : hf_tensors(config)) {
    EXPECT_EQ(tensor.count, product(tensor.shape)) << tensor.name;
    EXPECT_EQ(tensor.begin, filled[tensor.param]) << tensor.name;
    EXPECT_EQ(shapes.emplace(tensor.param, tensor.param_shape).first->second, tensor.param_shape)
        << tensor.name;
    filled[tensor.param] += tensor.count;
    total += tensor.count;
  }
  for (const HfTensor& tensor : hf_tensors(config)) {
    EXPECT_EQ(filled[tensor.param], product(tensor.param_shape)) << tensor.param;
  }
  EXPECT_EQ(total, count_parameters(config).total);
}

HfTensor find(const ModelConfig& config, const std::string& name) {
  for (const HfTensor& tensor : hf_tensors(config)) {
    if (tensor.name == name) return tensor;
  }
  return {};
}

TEST(HfNames, KnowWherePartsLie) {
  const ModelConfig config = small_model();  // H 16, F 24, I 32
  const HfTensor up = find(config, "model.layers.1.feed_forward.experts.2.up_proj.weight");
  EXPECT_EQ(up.param, "model.layers.1.feed_forward.experts.gate_up_proj");
  EXPECT_THAT(up.param_shape, ElementsAre(3, 2, 24, 16));
  EXPECT_EQ(up.begin, 2 * 48 * 16 + 24 * 16);
  const HfTensor down = find(config, "model.layers.1.feed_forward.experts.1.down_proj.weight");
  EXPECT_EQ(down.param, "model.layers.1.feed_forward.experts.down_proj");
  EXPECT_EQ(down.begin, 16 * 24);
  const HfTensor dense = find(config, "model.layers.0.feed_forward.up_proj.weight");
  EXPECT_EQ(dense.param, "model.layers.0.feed_forward.gate_up_proj.weight");
  EXPECT_THAT(dense.param_shape, ElementsAre(2, 24, 16));
  EXPECT_EQ(dense.begin, 24 * 16);
  const HfTensor in = find(config, "model.layers.0.mamba.in_proj.weight");
  EXPECT_THAT(in.shape, ElementsAre(64, 16));
  EXPECT_THAT(in.param_shape, ElementsAre(2, 32, 16));
  const HfTensor conv = find(config, "model.layers.0.mamba.conv1d.weight");
  EXPECT_THAT(conv.shape, ElementsAre(32, 1, 4));
  EXPECT_THAT(conv.param_shape, ElementsAre(32, 4));
}

TEST(HfNames, SwitchesRemoveTensors) {
  ModelConfig config = small_model();
  const auto has = [&](const char* name) { return !find(config, name).name.empty(); };
  EXPECT_TRUE(has("lm_head.weight"));
  EXPECT_TRUE(has("model.layers.0.mamba.conv1d.bias"));
  EXPECT_TRUE(has("model.layers.0.mamba.b_layernorm.weight"));
  EXPECT_FALSE(has("model.layers.0.mamba.in_proj.bias"));
  config.tie_word_embeddings = true;
  config.mamba_conv_bias = false;
  config.mamba_inner_norms = false;
  config.mamba_proj_bias = true;
  config.num_experts = 1;
  EXPECT_FALSE(has("lm_head.weight"));
  EXPECT_FALSE(has("model.layers.0.mamba.conv1d.bias"));
  EXPECT_FALSE(has("model.layers.0.mamba.b_layernorm.weight"));
  EXPECT_TRUE(has("model.layers.0.mamba.in_proj.bias"));
  EXPECT_TRUE(has("model.layers.0.mamba.out_proj.bias"));
  EXPECT_TRUE(has("model.layers.1.feed_forward.gate_proj.weight"));
  EXPECT_FALSE(has("model.layers.1.feed_forward.router.weight"));
}

class HfConfig : public ::testing::Test {
 protected:
  ModelConfig read(const std::string& json) {
    write_bytes(directory_ / "config.json", json);
    return read_hf_config(directory_ / "config.json");
  }
  std::string error(const std::string& json) {
    const std::string message = message_of<DataError>([&] { read(json); });
    EXPECT_THAT(message, HasSubstr(directory_ / "config.json"));
    return message;
  }

  const TemporaryDirectory directory_;
};

TEST_F(HfConfig, AbsentKeysAreJambaV01) {
  const ModelConfig c = read("{}");
  EXPECT_EQ(c.vocab_size, 65536);
  EXPECT_EQ(c.dt_rank(), 256);
  EXPECT_EQ(c.num_experts, 16);
  EXPECT_EQ(c.aux_loss, AuxLossKind::none);
  EXPECT_EQ(c.pad_token_id, 0);
  EXPECT_EQ(c.layer_map().substr(0, 13), "MMeMMeAMeMMeM");
  EXPECT_EQ(count_parameters(c).total, 51570323328);
}

TEST_F(HfConfig, ReadsEveryKey) {
  const ModelConfig c = read(R"({"model_type": "jamba", "hidden_act": "silu", "vocab_size": 100,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": null, "head_dim": 6, "attn_layer_period": 3, "attn_layer_offset": 0,
    "expert_layer_period": 1, "expert_layer_offset": 0, "num_local_experts": 5,
    "num_experts_per_tok": 3, "mamba_d_state": 8, "mamba_d_conv": 3, "mamba_expand": 1,
    "mamba_dt_rank": "auto", "mamba_conv_bias": false, "mamba_proj_bias": true,
    "mamba_inner_layernorms": false, "rms_norm_eps": 1e-5, "initializer_range": 0.1,
    "tie_word_embeddings": true, "pad_token_id": null, "output_router_logits": true,
    "router_aux_loss_coef": 0.25, "sliding_window": null, "torch_dtype": "bfloat16"})");
  ModelConfig want;
  want.vocab_size = 100;
  want.hidden_size = 32;
  want.intermediate_size = 48;
  want.num_hidden_layers = 6;
  want.num_attention_heads = want.num_key_value_heads = 8;
  want.head_dim = 6;
  want.attn_layer_period = 3;
  want.attn_layer_offset = 0;
  want.expert_layer_period = 1;
  want.expert_layer_offset = 0;
  want.num_experts = 5;
  want.num_experts_per_tok = 3;
  want.mamba_d_state = 8;
  want.mamba_d_conv = 3;
  want.mamba_expand = 1;
  want.mamba_conv_bias = false;
  want.mamba_proj_bias = true;
  want.mamba_inner_norms = false;
  want.rms_norm_eps = 1e-5;
  want.initializer_range = 0.1;
  want.tie_word_embeddings = true;
  want.pad_token_id = -1;
  want.aux_loss = AuxLossKind::pooled;
  want.aux_loss_scope = AuxLossScope::microbatch;
  want.router_aux_loss_coef = 0.25;
  EXPECT_EQ(model_to_json(c), model_to_json(want));
}

TEST_F(HfConfig, NamesTheKeyThatIsWrong) {
  EXPECT_THROW(read_hf_config(directory_ / "none"), NoInputError);
  EXPECT_THAT(error("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error(R"({"model_type": "mixtral"})"),
              AllOf(HasSubstr("'model_type'"), HasSubstr("'mixtral'")));
  EXPECT_THAT(error(R"({"hidden_act": "gelu"})"), HasSubstr("'hidden_act'"));
  EXPECT_THAT(error(R"({"hidden_size": "64"})"), HasSubstr("'hidden_size': expected an integer"));
  EXPECT_THAT(error(R"({"hidden_size": 64.5})"), HasSubstr("'hidden_size'"));
  EXPECT_THAT(error(R"({"hidden_size": 0})"), HasSubstr("'hidden_size'"));
  EXPECT_THAT(error(R"({"vocab_size": -1})"), HasSubstr("'vocab_size'"));
  EXPECT_THAT(error(R"({"mamba_dt_rank": "half"})"), HasSubstr("'mamba_dt_rank'"));
  EXPECT_THAT(error(R"({"num_experts": 4, "num_local_experts": 8})"),
              HasSubstr("'num_local_experts': differs"));
  EXPECT_THAT(error(R"({"num_key_value_heads": 5})"), HasSubstr("'num_key_value_heads'"));
  EXPECT_THAT(error(R"({"attn_layer_offset": 8})"), HasSubstr("'attn_layer_offset'"));
  EXPECT_THAT(error(R"({"tie_word_embeddings": 1})"), HasSubstr("'tie_word_embeddings'"));
}

TEST(ModelJson, RoundTripsEveryField) {
  ModelConfig c = small_model();
  c.rope = true;
  c.rope_theta = 12345.678901234567;
  c.aux_loss = AuxLossKind::per_layer;
  c.init = InitKind::mamba;
  c.router_jitter = 0.1;
  c.activation_loss_coef = 1e-300;
  c.mamba_inner_norms = false;
  c.renormalize_topk = true;
  c.pad_token_id = -1;
  const std::string json = model_to_json(c);
  const ModelConfig back = model_from_json(json, "here");
  EXPECT_EQ(model_to_json(back), json);
  EXPECT_EQ(back.rope_theta, c.rope_theta);
  EXPECT_EQ(back.init, c.init);
  EXPECT_THAT(architecture_diff(c, back), IsEmpty());
}

struct Anything {
  template <class T>
  operator T() const;
};

/// Number of fields of an aggregate: as many initialisers as it takes.
template <class T, class... Values>
constexpr int num_fields() {
  if constexpr (requires { T{Values{}..., Anything{}}; }) {
    return num_fields<T, Values..., Anything>();
  } else {
    return sizeof...(Values);
  }
}

TEST(ModelJson, ForgetsNoField) {
  const std::string json = model_to_json(small_model());
  int keys = 0;
  for (std::size_t at = 0; (at = json.find("\":", at)) != std::string::npos; ++at) ++keys;
  EXPECT_EQ(keys, num_fields<ModelConfig>());
}

TEST(ModelJson, RefusesOtherObjects) {
  const std::string json = model_to_json(small_model());
  const auto error = [&](const std::string& from, const std::string& to) {
    std::string changed = json;
    changed.replace(changed.find(from), from.size(), to);
    return message_of<DataError>([&] { model_from_json(changed, "here"); });
  };
  EXPECT_THAT(error("hidden_size", "hidden_sise"), HasSubstr("'hidden_size': missing"));
  EXPECT_THAT(error("{", "{\"more\":1,"), HasSubstr("'more': unknown key"));
  EXPECT_THAT(error("\"pooled\"", "\"both\""), HasSubstr("'aux_loss': 'both'"));
  EXPECT_THAT(error("\"hidden_size\":16", "\"hidden_size\":-16"), HasSubstr("'hidden_size'"));
}

TEST(ModelJson, DiffSeesThroughDefaults) {
  ModelConfig a = small_model(), b = small_model();
  b.head_dim = 4;                   // the default, written out
  b.mamba_dt_rank = 1;              // likewise
  b.expert_intermediate_size = 24;  // likewise
  b.layer_pattern = "";
  b.attn_layer_period = 4;
  b.attn_layer_offset = 2;
  EXPECT_THAT(architecture_diff(a, b), IsEmpty());
  b.num_experts = 1;
  EXPECT_THAT(architecture_diff(a, b), Contains(HasSubstr("layers: \"MMeAMe\" against \"MMAM\"")));
}

/// A Hugging Face directory of small_model() with known values: element i of tensor t is a function
/// of (t, i).
class Import : public ::testing::Test {
 protected:
  static constexpr const char* kConfig = R"({"model_type": "jamba", "vocab_size": 48,
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "attn_layer_period": 4,
    "attn_layer_offset": 2, "expert_layer_period": 2, "expert_layer_offset": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "mamba_d_state": 4, "num_experts": 3,
    "num_experts_per_tok": 2})";

  void SetUp() override {
    from_ = directory_ / "hf";
    to_ = directory_ / "checkpoint";
    fs::create_directory(from_);
    write_bytes(from_ + "/config.json", kConfig);
    write_bytes(from_ + "/tokenizer.model", "pieces");
    write_tensors(hf_tensors(read_hf_config(from_ + "/config.json")));
  }

  static float value(const std::string& name, std::int64_t i) {
    return static_cast<float>(std::hash<std::string>()(name) % 100003) +
           0x1p-6f * static_cast<float>(i % 64);
  }

  void write_tensors(const std::vector<HfTensor>& tensors) {
    std::vector<Buffer> buffers;
    std::vector<NamedTensor> named;
    for (const HfTensor& tensor : tensors) {
      buffers.emplace_back(tensor.count * 4);
      auto* data = static_cast<float*>(buffers.back().data());
      for (std::int64_t i = 0; i < tensor.count; ++i) data[i] = value(tensor.name, i);
      named.push_back({tensor.name, Tensor(data, DType::f32, tensor.shape)});
    }
    write_safetensors(from_ + "/model.safetensors", named);
  }

  const TemporaryDirectory directory_;
  std::string from_, to_;
};

TEST_F(Import, PutsEveryElementInItsPlace) {
  import_hugging_face(from_, to_);
  const FoundCheckpoint found = resolve_checkpoint(to_);
  EXPECT_EQ(found.path, to_ + "/step-00000000");
  EXPECT_TRUE(found.manifest.info.weights_only);
  EXPECT_THAT(architecture_diff(found.manifest.info.model, small_model()), IsEmpty());
  EXPECT_EQ(read_tokenizer_model(found.path, found.manifest), "pieces");

  std::map<std::string, Buffer> params;
  std::vector<StateSlice> slices;
  const std::vector<HfTensor> tensors = hf_tensors(found.manifest.info.model);
  for (const HfTensor& tensor : tensors) {
    const auto [it, added] = params.emplace(tensor.param, product(tensor.param_shape) * 4);
    if (!added) continue;
    slices.push_back({"weight/" + tensor.param, tensor.param_shape,
                      std::vector<std::int64_t>(tensor.param_shape.size(), 0),
                      Tensor(it->second.data(), DType::f32, tensor.param_shape)});
  }
  load_checkpoint(found.path, slices);
  for (const HfTensor& tensor : tensors) {
    const float* data = static_cast<const float*>(params.at(tensor.param).data()) + tensor.begin;
    bool same = true;
    for (std::int64_t i = 0; i < tensor.count; ++i) same = same && data[i] == value(tensor.name, i);
    EXPECT_TRUE(same) << tensor.name;
  }
  slices[0].name = "adam_m/lm_head.weight";
  EXPECT_THAT(message_of<CheckpointError>([&] { load_checkpoint(found.path, slices); }),
              HasSubstr("missing: adam_m/lm_head.weight (it holds weights only)"));
}

TEST_F(Import, ListsTensorsThatDoNotFit) {
  auto tensors = hf_tensors(read_hf_config(from_ + "/config.json"));
  tensors[0].name = "model.embed.weight";
  tensors[1].shape = {1, 16};
  write_tensors(tensors);
  EXPECT_THAT(message_of<DataError>([&] { import_hugging_face(from_, to_); }),
              AllOf(HasSubstr("missing: model.embed_tokens.weight"),
                    HasSubstr("unknown: model.embed.weight"),
                    HasSubstr("input_layernorm.weight: shape [1, 16], expected [16]")));
  EXPECT_FALSE(fs::exists(to_));
}

TEST_F(Import, AFailureLeavesNothing) {
  std::string bytes = read_bytes(from_ + "/model.safetensors");
  const std::size_t at = bytes.find("F32", bytes.find("final_layernorm"));
  bytes.replace(at, 3, "I32");  // the right size, but no weights
  write_bytes(from_ + "/model.safetensors", bytes);
  EXPECT_THAT(message_of<DataError>([&] { import_hugging_face(from_, to_); }),
              AllOf(HasSubstr("final_layernorm"), HasSubstr("cannot be read as float32")));
  EXPECT_THAT(names_in(to_), IsEmpty());
}

TEST_F(Import, NeverTouchesCheckpointsThatExist) {
  save_state(to_, 0, 1, 1);
  EXPECT_THROW(import_hugging_face(from_, to_), CannotCreateError);
  expect_loads(to_ + "/step-00000000", 1);
}

TEST_F(Import, ReadsEveryFixture) {
  const auto paths = fixtures();
  if (paths.empty()) GTEST_SKIP() << "no ../shared/fixtures beside this checkout";
  for (const std::string& path : paths) {
    SCOPED_TRACE(path);
    const std::string to = directory_ / fs::path(path).filename().string();
    import_hugging_face(path, to);
    EXPECT_FALSE(read_tokenizer_model(to + "/step-00000000", resolve_checkpoint(to).manifest));
  }
}

}  // namespace
}  // namespace jamba::test

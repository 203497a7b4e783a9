// Properties of the whole model that need no reference.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/tensors.h"
#include "tests/trainer/model_fixture.h"
#include "trainer/generate.h"
#include "trainer/score.h"

namespace jamba {
namespace {

using test::fill_random;
using test::small_config;
using test::SmallModel;

std::vector<ModelConfig> variants() {
  std::vector<ModelConfig> out(7, small_config());
  out[1].aux_loss = AuxLossKind::per_layer;
  out[1].router_z_loss_coef = 1e-3;
  out[2].aux_loss_scope = AuxLossScope::microbatch;
  out[2].renormalize_topk = true;
  out[3].rope = true;
  out[3].tie_word_embeddings = true;
  out[4].mamba_inner_norms = false;
  out[4].initializer_range = 0.05;  // without the norms 0.2 blows up
  out[4].activation_loss_coef = 1e-2;
  out[5].router_jitter = 0.1;
  out[5].expert_intermediate_size = 12;
  out[6].layer_pattern = "A Me A M";
  out[6].mamba_proj_bias = true;
  out[6].mamba_conv_bias = false;
  return out;
}

// All experts take every token here: where the choice flips, the loss jumps and no difference
// quotient is a derivative. Gradients under a choice are compared in verify_test.
TEST(Model, GradientsAreDirectionalDerivativesOfTheLoss) {
  for (ModelConfig config : variants()) {
    config.num_experts_per_tok = config.num_experts;
    SmallModel m(config);
    MicrobatchBuffers buffers(m.mesh, m.stream, 1, 2, 19);
    fill_random(buffers.tokens(0), config.vocab_size, 3, {0, 7, 11});
    buffers.send(0);
    const Microbatch batch = buffers.model_view(0, RouterNoise{5, 1});
    const LossScale scale{1.0 / 38, 1.0 / 2};
    m.train(batch, scale);
    const std::vector<float> gradient = m.gradients();
    double norm = 0;
    for (const float g : gradient) norm += static_cast<double>(g) * static_cast<double>(g);
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 0);

    // Along the normalised gradient the loss rises by its norm.
    std::vector<float*> weights;  // of the layers themselves
    for (const Parameters::Entry& entry : m.parameters.entries()) {
      for (std::int64_t i = 0; i < entry.numel(); ++i) {
        weights.push_back(entry.weight.value.ptr<float>() + i);
      }
    }
    std::vector<float> start;
    for (const float* weight : weights) start.push_back(*weight);
    const auto loss_at = [&](double step) {
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        *weights[i] = static_cast<float>(static_cast<double>(start[i]) +
                                         step * static_cast<double>(gradient[i]) / norm);
      }
      return mean_losses(m.train(batch, scale), scale, config, 2, 19).total;
    };
    constexpr double kStep = 2e-3;
    const double slope =
        (8 * (loss_at(kStep) - loss_at(-kStep)) - (loss_at(2 * kStep) - loss_at(-2 * kStep))) /
        (12 * kStep);
    EXPECT_TRUE(std::abs(slope - norm) <= 2e-3 * norm)
        << config.layer_map() << " jitter " << config.router_jitter << " inner norms "
        << config.mamba_inner_norms << ": slope " << slope << ", gradient norm " << norm;
  }
}

TEST(Model, RecomputationLeavesEveryBitOfTheGradients) {
  for (const ModelConfig& config : variants()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      SmallModel m(config, 2, dtype);
      MicrobatchBuffers buffers(m.mesh, m.stream, 1, 2, 33);
      fill_random(buffers.tokens(0), config.vocab_size, 4, {0, 20});
      buffers.send(0);
      const Microbatch batch = buffers.model_view(0, RouterNoise{5, 1});
      const LossSums kept = m.train(batch, {1.0 / 66, 0.5});
      const std::vector<float> expected = m.gradients();
      const LossSums redone = m.train(batch, {1.0 / 66, 0.5}, Recomputation::on);
      EXPECT_EQ(m.gradients(), expected) << config.layer_map();
      EXPECT_EQ(kept.nll.value(), redone.nll.value());
      EXPECT_EQ(kept.aux.value(), redone.aux.value());
    }
  }
}

TEST(Model, AccumulatedMicrobatchesGiveTheGradientOfTheWholeBatch) {
  ModelConfig config = small_config();
  SmallModel m(config);
  SmallModel four(config, 1, DType::f32, 4);
  MicrobatchBuffers whole(m.mesh, m.stream, 1, 4, 17), parts(m.mesh, m.stream, 4, 1, 17);
  fill_random(whole.tokens(0), config.vocab_size, 5);
  const LossScale scale{1.0 / 68, 0.25};
  whole.send(0);
  m.train(whole.model_view(0), scale);
  const std::vector<float> expected = m.gradients();

  for (std::int64_t i = 0; i < 4; ++i) {
    const Batch& part = parts.tokens(i);
    for (std::int64_t t = 0; t < 17; ++t) {
      part.ids.ptr<std::int32_t>()[t] = whole.tokens(0).ids.ptr<std::int32_t>()[17 * i + t];
      part.labels.ptr<std::int32_t>()[t] = whole.tokens(0).labels.ptr<std::int32_t>()[17 * i + t];
      part.doc_start.ptr<std::int32_t>()[t] = 0;
    }
    parts.send(i);
    four.train(parts.model_view(i), scale, Recomputation::off, i);
  }
  const std::vector<float> got = four.gradients();
  EXPECT_LE(test::worst_error({got.begin(), got.end()}, {expected.begin(), expected.end()}), 1e-5);
}

TEST(Model, ADocumentDoesNotSeeTheOneBeforeIt) {
  ModelConfig config = small_config();
  config.aux_loss = AuxLossKind::none;  // balances experts over the whole sequence on purpose
  constexpr std::int64_t kSeq = 40, kSecond = 23;
  SmallModel m(config);
  MicrobatchBuffers buffers(m.mesh, m.stream, 2, 1, kSeq);
  fill_random(buffers.tokens(0), config.vocab_size, 6, {0, kSecond});
  fill_random(buffers.tokens(1), config.vocab_size, 99, {0, kSecond});
  std::vector<std::vector<float>> gradients, losses;
  for (const std::int64_t i : {0, 1}) {
    const Batch& tokens = buffers.tokens(i);
    for (std::int64_t t = 0; t < kSeq; ++t) {
      if (t < kSecond) {
        tokens.labels.ptr<std::int32_t>()[t] = -100;
        continue;
      }
      tokens.ids.ptr<std::int32_t>()[t] = buffers.tokens(0).ids.ptr<std::int32_t>()[t];
      tokens.labels.ptr<std::int32_t>()[t] = buffers.tokens(0).labels.ptr<std::int32_t>()[t];
    }
    buffers.send(i);
    m.train(buffers.model_view(i), {1.0 / (kSeq - kSecond), 1.0});
    gradients.push_back(m.gradients());
    m.workspace.reset();
    const Context ctx = m.workspace.context();
    m.forward(ctx, buffers.model_view(i));
    const Tensor loss = ctx.activation(DType::f32, {kSeq});
    m.model.token_losses(ctx, loss, buffers.model_view(i), m.saved);
    losses.emplace_back(loss.ptr<float>() + kSecond, loss.ptr<float>() + kSeq);
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_LE(test::worst_error({gradients[1].begin(), gradients[1].end()},
                              {gradients[0].begin(), gradients[0].end()}),
            2e-6);
}

TEST(Model, CachedGenerationEqualsAFullForward) {
  for (const ModelConfig& config : variants()) {
    SmallModel m(config);
    const CounterRng rng(8, "prompt");
    std::vector<std::int32_t> ids;
    for (std::uint64_t i = 0; i < 29; ++i) {
      ids.push_back(static_cast<std::int32_t>(rng.below(i, config.vocab_size)));
    }
    Generator generator(m.workspace, m.model, DType::f32, 29);
    std::vector<float> last;
    std::size_t at = 0;
    for (const std::size_t size : {1, 2, 9, 1, 16}) {  // pieces shorter and longer than the window
      const auto logits = generator.feed(std::span(ids).subspan(at, size));
      last.assign(logits.begin(), logits.end());
      at += size;
    }
    m.workspace.reset();
    MicrobatchBuffers buffers(m.mesh, m.stream, 1, 1, 29);
    fill_random(buffers.tokens(0), config.vocab_size, 1);
    std::copy(ids.begin(), ids.end(), buffers.tokens(0).ids.ptr<std::int32_t>());
    const Context ctx = m.workspace.context();
    buffers.send(0);
    m.forward(ctx, buffers.model_view(0));
    const Tensor logits = ctx.activation(DType::f32, {29, config.vocab_size});
    const Tensor normed = ctx.activation(DType::f32, {29, config.hidden_size});
    m.model.logits(ctx, logits, normed, m.saved);
    const float* want = logits.ptr<float>() + 28 * config.vocab_size;
    EXPECT_LE(test::worst_error({last.begin(), last.end()}, {want, want + config.vocab_size}), 1e-5)
        << config.layer_map();
  }
}

TEST(Model, ScoresAreTheLogProbabilitiesOfTheSoftmax) {
  SmallModel m(small_config());
  const std::vector<std::int64_t> ids = {1, 17, 4, 4, 60};
  const std::vector<float> scores = score_tokens(m.workspace, m.model, m.saved, ids);
  ASSERT_EQ(scores.size(), 4u);
  Generator generator(m.workspace, m.model, DType::f32, 5);
  for (std::size_t t = 0; t < 4; ++t) {
    const auto id = static_cast<std::int32_t>(ids[t]);
    const auto logits = generator.feed({&id, 1});
    double sum = 0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l));
    const double want =
        static_cast<double>(logits[static_cast<std::size_t>(ids[t + 1])]) - std::log(sum);
    EXPECT_NEAR(static_cast<double>(scores[t]), want, 1e-5);
  }
  EXPECT_TRUE(score_tokens(m.workspace, m.model, m.saved, std::vector<std::int64_t>{3}).empty());
  EXPECT_THROW(score_tokens(m.workspace, m.model, m.saved, std::vector<std::int64_t>{3, 61}),
               DataError);
}

TEST(Model, InitialStepSizesOfTheMambaRuleLieInTheirRange) {
  const ModelConfig config = small_config();
  SmallModel m(config);
  const Tensor bias = m.parameters.entry("model.layers.0.mamba.dt_proj.bias").weight.value;
  double lowest = 1, highest = 0;
  for (std::int64_t i = 0; i < bias.numel(); ++i) {
    const double dt = std::log1p(std::exp(static_cast<double>(bias.ptr<float>()[i])));
    lowest = std::min(lowest, dt);
    highest = std::max(highest, dt);
  }
  EXPECT_GE(lowest, 0.99e-3);
  EXPECT_LE(highest, 0.101);
  EXPECT_GT(highest / lowest, 10);
}

TEST(Model, HuggingFaceInitialisationDrawsWhatItSays) {
  ModelConfig config = small_config();
  config.init = InitKind::hugging_face;
  config.initializer_range = 0.02;
  SmallModel m(config);
  const auto values = [&](const std::string& name) {
    return test::to_doubles(m.parameters.entry(name).weight.value);
  };
  double squares = 0;
  const auto gate_up = values("model.layers.1.feed_forward.experts.gate_up_proj");
  for (const double w : gate_up) squares += w * w;
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(gate_up.size())), 0.02, 0.001);
  for (const double b : values("model.layers.0.mamba.dt_proj.bias")) EXPECT_EQ(b, 0);
  const auto a_log = values("model.layers.0.mamba.A_log");
  EXPECT_FLOAT_EQ(static_cast<float>(a_log[5]), std::log(6.0f));
  const auto embedding = values("model.embed_tokens.weight");
  for (std::int64_t i = 0; i < config.hidden_size; ++i) {
    EXPECT_EQ(embedding[static_cast<std::size_t>(i)], 0) << "the padding row";
  }
}

}  // namespace
}  // namespace jamba

// Bytes that a step sends along each axis, against the formulas of docs/parallelism.md.

#include <gtest/gtest.h>

#include "parallel/comm/thread_group.h"
#include "tests/trainer/step_fixture.h"
#include "trainer/config/config.h"

namespace jamba {
namespace {

using Bytes = std::map<std::string, std::int64_t>;

constexpr std::int64_t kFloat = 4, kInt = 8;

/// What each rank sends in the second step (the first may differ: values come once more).
std::vector<Bytes> traffic(const RunConfig& config, int ranks) {
  std::vector<Bytes> out(static_cast<std::size_t>(ranks));
  run_ranks(ranks, [&](Communicator& world) {
    test::StepRank rank(config, world);
    rank.step(0);
    const std::vector<Mesh::Traffic> before = rank.mesh.traffic();
    rank.step(1);
    const std::vector<Mesh::Traffic> after = rank.mesh.traffic();
    for (std::size_t i = 0; i < after.size(); ++i) {
      out[static_cast<std::size_t>(world.rank())][after[i].axis] +=
          after[i].bytes - before[i].bytes;
    }
  });
  return out;
}

/// The sizes that the formulas speak of.
struct Sizes {
  explicit Sizes(const RunConfig& c)
      : batch(c.train.micro_batch_size),
        tokens(c.train.micro_batch_size * c.data.seq_len),
        hidden(c.model.hidden_size),
        inner(c.model.inner_size()),
        state(c.model.mamba_d_state),
        low_rank(c.model.dt_rank() + 2 * c.model.mamba_d_state),
        k(c.model.num_experts_per_tok),
        experts(c.model.num_experts),
        layers(c.model.num_hidden_layers),
        mixtures(num_mixtures(c.model)) {
    for (const LayerKind& kind : c.model.layers()) mambas += kind.mixer == MixerKind::mamba ? 1 : 0;
  }
  std::int64_t batch, tokens, hidden, inner, state, low_rank, k, experts, layers, mixtures;
  std::int64_t mambas = 0;
};

/// An all-reduce of n elements over two ranks: each sends its half, then the other's sum.
std::int64_t reduced(std::int64_t n) { return n * kFloat; }

RunConfig config_with(const std::vector<std::string>& settings) {
  return with_overrides(test::small_run_config(), settings);
}

TEST(Traffic, OfTensorParallelismWithSequences) {
  const RunConfig c = config_with({"parallel.tp=2"});
  const Sizes s(c);
  const std::int64_t micro = 4, part = s.tokens / 2 * s.hidden * kFloat;  // a rank's residual rows
  // Forward: in and out of two regions a layer, out of the embedding, into the head. Backward: the
  // region's input again, its output's gradient, its input's gradient.
  const std::int64_t regions = 2 * s.layers * (2 + 3) * part + (1 + 1) * part + (1 + 1) * part;
  const std::int64_t mamba = 2 * s.mambas * reduced(s.tokens * s.low_rank);
  const std::int64_t moe = s.mixtures * reduced(s.tokens * s.k);
  const std::int64_t head = s.tokens * 3 * kFloat;
  // Once a step: the norms' weights, two a layer that lie one unit block apart, one in the head.
  const std::int64_t norms = s.layers * reduced(kUnitBlock + s.hidden) + reduced(s.hidden);
  for (const Bytes& sent : traffic(c, 2)) {
    EXPECT_EQ(sent.at("tp"), micro * (regions + mamba + moe + head) + norms);
  }
}

TEST(Traffic, OfPlainTensorParallelism) {
  const RunConfig c = config_with({"parallel.tp=2", "parallel.sequence_parallel=false"});
  const Sizes s(c);
  const std::int64_t all = reduced(s.tokens * s.hidden);
  const std::int64_t regions = 2 * s.layers * (1 + 1) * all + (1 + 1) * all;
  const std::int64_t mamba = 2 * s.mambas * reduced(s.tokens * s.low_rank);
  const std::int64_t moe = s.mixtures * reduced(s.tokens * s.k);
  const std::int64_t head = s.tokens * 3 * kFloat;
  for (const Bytes& sent : traffic(c, 2)) {
    EXPECT_EQ(sent.at("tp"), 4 * (regions + mamba + moe + head));
  }
}

TEST(Traffic, OfExpertParallelism) {
  const RunConfig c = config_with({"parallel.ep=2", "model.force_balanced_routing=true"});
  const Sizes s(c);
  // Each of the two experts ranks gets half of the copies, and half of those come from the other.
  const std::int64_t rows = s.tokens * s.k / 2, row = s.hidden * kFloat;
  const std::int64_t counts = s.experts / 2 * kInt;
  const std::int64_t forward = rows * (row + kFloat) + rows * row + counts;
  const std::int64_t backward = rows * row + rows * (row + kFloat);
  for (const Bytes& sent : traffic(c, 2)) {
    EXPECT_EQ(sent.at("ep"), 2 * s.mixtures * (forward + backward)) << "two microbatches";
  }
}

TEST(Traffic, OfThePipeline) {
  const RunConfig c = config_with({"parallel.pp=2"});
  const Sizes s(c);
  const std::int64_t stream = s.tokens * s.hidden * kFloat;
  const std::int64_t before = s.mixtures / 2 * s.batch * s.experts;  // of the first stage
  const std::vector<Bytes> sent = traffic(c, 2);
  EXPECT_EQ(sent[0].at("pp"), 4 * (stream + before * (kFloat + kInt)));
  EXPECT_EQ(sent[1].at("pp"), 4 * (stream + s.batch * s.experts * kFloat));
}

TEST(Traffic, OfContextParallelism) {
  const RunConfig c = config_with({"parallel.cp=2"});
  const Sizes s(c);
  const std::vector<Bytes> sent = traffic(c, 2);
  // Mamba: the halo and the state go up, their gradients come down.
  const std::int64_t halo = s.batch * (c.model.mamba_d_conv - 1) * s.inner * kFloat;
  const std::int64_t state = s.batch * s.inner * s.state * kFloat;
  const std::int64_t mamba = s.mambas * (halo + state);
  // Attention: half of the heads of this rank's tokens for the other's tokens of the own heads.
  const std::int64_t q = s.hidden / 2 * kFloat;
  const std::int64_t kv = c.model.num_key_value_heads / 2 * c.model.attention_head_dim() * kFloat;
  const std::int64_t attentions = s.layers - s.mambas;
  const auto attention = [&](std::int64_t own, std::int64_t other) {
    const std::int64_t forward = own * (q + 2 * kv) + other * q;
    const std::int64_t backward =
        other * q + own * q + other * (q + 2 * kv);  // out, dout, dq dk dv
    return attentions * (forward + backward);
  };
  const std::int64_t choices = s.mixtures * s.batch * s.experts;
  const std::int64_t balance = reduced(choices) + choices * kInt;
  const std::int64_t first = 21 / 2 * s.batch, second = s.tokens - first;
  EXPECT_EQ(sent[0].at("cp"), 4 * (mamba + attention(first, second) + balance));
  EXPECT_EQ(sent[1].at("cp"), 4 * (mamba + attention(second, first) + balance));
}

/// Elements of all units with padding, and of the experts' alone.
std::int64_t unit_elements(const RunConfig& c, int ranks) {
  std::int64_t elements = 0;
  run_ranks(ranks, [&](Communicator& world) {
    test::StepRank rank(c, world);
    std::int64_t sum = 0;
    for (int u = 0; u < rank.rank.parameters().store().num_units(); ++u) {
      sum += rank.rank.parameters().store().size(u);
    }
    if (world.rank() == 0) elements = sum;
  });
  return elements;
}

TEST(Traffic, OfDataParallelismAndZero) {
  const auto data = [](const std::string& stage) {
    const RunConfig c = config_with({"parallel.zero=" + stage});
    const std::vector<Bytes> sent = traffic(c, 2);
    EXPECT_EQ(sent[0].at("data"), sent[1].at("data"));
    return sent[0].at("data") + sent[0].at("expert data");
  };
  const std::int64_t n = unit_elements(config_with({}), 2) * kFloat;
  EXPECT_EQ(data("0"), n) << "gradients reduced: n (p - 1) / p twice";
  EXPECT_EQ(data("1"), n / 2 + n / 2) << "gradients scattered, values gathered";
  EXPECT_EQ(data("2"), 2 * n / 2 + n / 2) << "gradients scattered in both microbatches";
}

}  // namespace
}  // namespace jamba

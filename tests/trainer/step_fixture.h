#pragma once
// A rank of any mesh that takes optimizer steps on random tokens.

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/pointwise/pointwise.h"
#include "tests/trainer/model_fixture.h"
#include "trainer/model/masters.h"
#include "trainer/train_step.h"
#include "trainer/verify/gather.h"

namespace jamba::test {

/// Eight sequences a step, two in each microbatch, so that 1, 2 and 4 data-parallel ranks see the
/// same microbatches.
inline RunConfig small_run_config() {
  RunConfig c;
  c.model = small_config();
  // A norm over the two numbers that the rule gives has a gradient that is nearly all cancellation.
  c.model.mamba_dt_rank = 4;
  c.data.seq_len = 21;
  c.train.steps = 10;
  c.train.micro_batch_size = 2;
  c.train.global_batch_size = 8;
  c.optimizer.lr = 1e-3;
  // Else the sign of a gradient that is nothing but rounding would decide an update.
  c.optimizer.eps = 1e-3;
  return c;
}

/// Sequence s of the step's global batch is the same in whichever microbatch. Sequences differ in
/// their number of targets and in their documents.
class RandomTokens : public TokenSource {
 public:
  explicit RandomTokens(std::int64_t vocab) : vocab_(vocab) {}
  void ignore_all_targets() { ignore_all_ = true; }

  std::int64_t fill(std::int64_t step, std::int64_t micro, const Batch& out) override {
    std::int64_t targets = 0;
    for (std::int64_t row = 0; row < out.ids.dim(0); ++row) {
      const std::int64_t number = micro * out.ids.dim(0) + row;
      const Batch one{out.ids.slice(row, 1), out.labels.slice(row, 1), out.doc_start.slice(row, 1)};
      fill_random(one, vocab_, static_cast<std::uint64_t>(1000 * step + number),
                  {0, static_cast<std::int32_t>(3 + number % 5), 9});
      for (std::int64_t t = 0; t < one.labels.numel(); ++t) {
        std::int32_t& label = one.labels.ptr<std::int32_t>()[t];
        if (ignore_all_ || t % (number + 2) == 0) label = -100;
        targets += label >= 0 ? 1 : 0;
      }
    }
    return targets;
  }

 private:
  std::int64_t vocab_;
  bool ignore_all_ = false;
};

/// Logical tensors by parameter.
using NamedTensors = std::map<std::string, std::vector<float>>;

struct StepRank {
  StepRank(const RunConfig& c, Communicator& world, Device device = {})
      : config(c),
        stream(Stream::on(device, 1)),
        mesh(make_mesh(config, world)),
        rank(config, mesh, stream),
        train_step(config, stream, rank),
        tokens(c.model.vocab_size) {
    rank.runner().poison();
    initialize(rank.parameters(), c.model, 7);
  }

  StepOutcome step(std::int64_t index, bool stop = false) {
    return train_step.run(tokens, index, stop);
  }

  // All ranks together.
  NamedTensors gradients() {
    return gather([&](const auto& entry, const auto& stretch) {
      return rank.parameters().gradient(entry, stretch);
    });
  }
  NamedTensors weights() {
    const Masters masters(rank.parameters(), Masters::Access::read);
    return gather(
        [&](const auto& entry, const auto& stretch) { return masters.of(entry, stretch); });
  }
  NamedTensors gather(const StretchValues& values) {
    NamedTensors out;
    for (const ParameterSpec& spec : parameter_specs(config.model)) {
      const LogicalTensor whole = gather_parameter(rank.parameters(), spec, values);
      const float* begin = whole.tensor().ptr<float>();
      out[spec.name].assign(begin, begin + spec.numel());
    }
    return out;
  }

  RunConfig config;
  Stream stream;
  Mesh mesh;
  RankModel rank;
  TrainStep train_step;
  RandomTokens tokens;
};

/// Each tensor by itself: a small one must not hide behind a large one. Relative Frobenius.
inline void expect_close(const NamedTensors& got, const NamedTensors& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, values] : want) {
    const std::vector<float>& others = got.at(name);
    ASSERT_EQ(others.size(), values.size()) << name;
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto w = static_cast<double>(values[i]);
      const double d = static_cast<double>(others[i]) - w;
      difference += d * d;
      size += w * w;
    }
    const double error = std::sqrt(difference / size);
    EXPECT_TRUE(error <= tolerance) << name << " off by " << error;
  }
}

/// One step, as it looks from everywhere.
struct StepResult {
  StepOutcome outcome;
  NamedTensors gradients, weights;
};

/// All ranks together.
inline StepResult one_step(const RunConfig& config, Communicator& world, Device device = {}) {
  StepRank rank(config, world, device);
  StepResult out;
  out.outcome = rank.step(0);
  out.gradients = rank.gradients();
  out.weights = rank.weights();
  return out;
}

inline void expect_close(const StepResult& got, const StepResult& want, double tolerance) {
  expect_close(got.gradients, want.gradients, tolerance);
  expect_close(got.weights, want.weights, tolerance);
  const Losses &a = got.outcome.losses, &b = want.outcome.losses;
  const auto near = [&](double x, double y) { return std::abs(x - y) <= tolerance * std::abs(y); };
  EXPECT_PRED2(near, a.lm, b.lm);
  EXPECT_PRED2(near, a.aux, b.aux);
  EXPECT_PRED2(near, a.z, b.z);
  EXPECT_PRED2(near, a.activation, b.activation);
  EXPECT_PRED2(near, got.outcome.grad_norm, want.outcome.grad_norm);
}

}  // namespace jamba::test

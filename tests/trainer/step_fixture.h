#pragma once
// A rank that takes optimizer steps on random tokens.

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/tensors.h"
#include "tests/trainer/model_fixture.h"
#include "trainer/model/masters.h"
#include "trainer/train_step.h"

namespace jamba::test {

/// Eight sequences a step, two in each microbatch, so that 1, 2 and 4 ranks see the same
/// microbatches.
inline RunConfig small_run_config() {
  RunConfig c;
  c.model = small_config();
  c.data.seq_len = 21;
  c.train.steps = 10;
  c.train.micro_batch_size = 2;
  c.train.global_batch_size = 8;
  c.optimizer.lr = 1e-3;
  c.parallel.bucket_mb = 0.02;  // several buckets even in a small model
  return c;
}

/// Microbatch m of the step's global batch is the same whichever rank takes it. Targets differ in
/// number between microbatches.
class RandomTokens : public TokenSource {
 public:
  RandomTokens(std::int64_t vocab, std::int64_t first_micro)
      : vocab_(vocab), first_micro_(first_micro) {}

  std::int64_t fill(std::int64_t step, std::int64_t micro_index, const Batch& out) override {
    const std::int64_t micro = first_micro_ + micro_index;
    fill_random(out, vocab_, static_cast<std::uint64_t>(100 * step + micro), {0, 9});
    std::int64_t targets = 0;
    for (std::int64_t i = 0; i < out.labels.numel(); ++i) {
      std::int32_t& label = out.labels.ptr<std::int32_t>()[i];
      if (i % (micro + 2) == 0) label = -100;
      targets += label >= 0 ? 1 : 0;
    }
    return targets;
  }

 private:
  std::int64_t vocab_, first_micro_;
};

struct StepRank {
  StepRank(const RunConfig& c, Communicator& comm)
      : config(c),
        stream(Stream::cpu(1)),
        parameters(c.model, c.train.dtype, Gradients::allocate),
        model(c.model, parameters),
        optimizer(parameters, c.optimizer),
        workspace(stream),
        train_step(config, comm, workspace, parameters, model, optimizer),
        tokens(c.model.vocab_size, comm.rank() * train_step.num_micro()) {
    initialize(stream, parameters, c.model, 7);
  }

  StepOutcome step(std::int64_t index, bool stop = false) {
    return train_step.run(tokens, index, stop);
  }
  std::vector<float> gradients() const { return copy(parameters.flat_gradients()); }
  std::vector<float> weights() { return copy(Masters(stream, parameters).flat()); }

  static std::vector<float> copy(const Tensor& t) {
    return {t.ptr<float>(), t.ptr<float>() + t.numel()};
  }

  RunConfig config;
  Stream stream;
  Parameters parameters;
  JambaModel model;
  AdamWOptimizer optimizer;
  Workspace workspace;
  TrainStep train_step;
  RandomTokens tokens;
};

/// Each parameter's gradient by itself: a small tensor must not hide behind a large one.
inline void expect_same_gradients(const Parameters& parameters, const std::vector<float>& want,
                                  double tolerance) {
  for (const Parameters::Entry& entry : parameters.entries()) {
    const float* got = entry.grad.ptr<float>();
    double difference = 0, size = 0;
    for (std::int64_t i = 0; i < entry.spec.numel(); ++i) {
      const auto w = static_cast<double>(want[static_cast<std::size_t>(entry.begin + i)]);
      const double d = static_cast<double>(got[i]) - w;
      difference += d * d;
      size += w * w;
    }
    const double error = std::sqrt(difference / size);
    EXPECT_TRUE(error <= tolerance) << entry.spec.name << " off by " << error;
  }
}

}  // namespace jamba::test

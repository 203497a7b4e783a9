#pragma once
// A scratch directory and sample records for the tests of metrics.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "trainer/metrics/step_record.h"

namespace jamba::test {

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream content;
  content << in.rdbuf();
  return content.str();
}

/// What the call throws as `E`, or a failure.
template <class E, class F>
std::string message_of(F&& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "no exception of the expected type";
  return {};
}

/// Every field has a value of its own.
inline StepRecord sample_step(std::int64_t step) {
  StepRecord r;
  r.step = step;
  r.total_steps = 5000;
  r.tokens = 78'600'000;
  r.loss = 3.5125;
  r.lm_loss = 3.4125;
  r.aux_loss = 1.0625;
  r.z_loss = 0.25;
  r.activation_loss = 0.125;
  r.grad_norm = 0.7125;
  r.lr = 3e-4;
  r.step_seconds = 0.5;
  r.tokens_per_second = 38'200;
  r.mfu = 0.41;
  r.peak_gflops = 182;
  r.peak_memory_bytes = std::int64_t{1'825'361'100};
  r.expert_load_max = 1.32;
  r.expert_entropy = 2.0;
  r.dropped_rows = 7;
  r.skipped_steps = 0;
  r.sent_bytes = {{"tp", 4096}, {"world", 96}};
  r.seconds = {0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125};
  r.seconds_left = 4321;
  return r;
}

inline EvalRecord sample_eval(std::int64_t step) {
  return {.step = step,
          .sources = {{.name = "wiki", .loss = 3.5, .unigram_entropy = 6.75, .tokens = 65536},
                      {.name = "plays", .loss = 4.25, .unigram_entropy = 6.5, .tokens = 4096}},
          .mean_loss = 3.875};
}

/// Each test has an empty directory that goes with it.
class MetricsTest : public ::testing::Test {
 protected:
  MetricsTest() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "jamba_metrics.XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    dir_ = pattern;
  }
  ~MetricsTest() override { std::filesystem::remove_all(dir_); }

  std::string file(const std::string& name) const { return (dir_ / name).string(); }

  std::filesystem::path dir_;
};

}  // namespace jamba::test

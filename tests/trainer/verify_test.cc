// Our model against Hugging Face's: losses, hidden states and every gradient.

#include "trainer/verify/verify.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "parallel/comm/thread_group.h"

namespace jamba {
namespace {

namespace fs = std::filesystem;

/// The goldens of the repository, and the full set where it lies beside the repository.
std::vector<std::string> fixture_directories() {
  std::vector<std::string> out;
  for (const char* root : {"tests/goldens", "../shared/fixtures"}) {
    if (!fs::is_directory(root)) continue;
    for (const auto& entry : fs::directory_iterator(root)) {
      if (entry.is_directory()) out.push_back(entry.path().string());
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

class Goldens : public testing::TestWithParam<std::string> {};

void expect_within_tolerance(const std::string& directory, const VerifyOptions& options,
                             int threads) {
  const Fixture fixture(directory);
  Stream stream = Stream::cpu(threads);
  Comparison comparison(fixture.expected());
  const std::unique_ptr<Communicator> alone = make_single_rank();
  verify(*alone, stream, fixture, options, comparison);
  EXPECT_GE(comparison.errors().size(), 10u);
  for (const TensorError& e : comparison.errors()) {
    EXPECT_TRUE(e.ok()) << e.name << " off by " << e.error;
  }
}

TEST_P(Goldens, AgreeWithinTolerance) {
  if (fs::path(GetParam()).filename().string().starts_with("padding")) {
    EXPECT_THROW(Fixture fixture(GetParam()), UnsupportedError);
    return;
  }
  expect_within_tolerance(GetParam(), {.tolerance = 5e-5}, 1);
}

TEST_P(Goldens, AgreeWithRecomputationOnTwoThreads) {
  if (fs::path(GetParam()).filename().string().starts_with("padding")) GTEST_SKIP();
  expect_within_tolerance(GetParam(), {.recompute = Recompute::block, .tolerance = 5e-5}, 2);
}

INSTANTIATE_TEST_SUITE_P(All, Goldens, testing::ValuesIn(fixture_directories()),
                         [](const auto& fixture) {
                           std::string name = fixture.param;
                           for (char& c : name) c = std::isalnum(c) ? c : '_';
                           return name;
                         });

TEST(Verify, SeesAWrongGradient) {
  const Fixture fixture("tests/goldens/odd_seq17");
  Stream stream = Stream::cpu(1);
  Comparison comparison(fixture.expected());
  float off_by_one = 1.0f;
  comparison.add("aux_loss", {}, Tensor(&off_by_one, DType::f32, {}), 1e-4);
  ASSERT_EQ(comparison.errors().size(), 1u);
  EXPECT_FALSE(comparison.errors()[0].ok());
}

}  // namespace
}  // namespace jamba

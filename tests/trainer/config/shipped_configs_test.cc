// Every file under configs/ loads, and has the size that it claims.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "trainer/config/config.h"

namespace jamba {
namespace {

namespace fs = std::filesystem;

const fs::path kConfigs = "configs";  // tests run in the root of the source tree

std::vector<fs::path> files(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(kConfigs / folder)) out.push_back(entry.path());
  return out;
}

struct Size {
  double total_millions;
  double active_millions;
};

// As the files' own comments say.
const std::map<std::string, Size> kSizes = {
    {"nano", {1.01, 0.72}},       {"micro", {8.2, 5.5}},      {"mini", {21.2, 15.7}},
    {"small", {297, 132}},        {"bench_a", {21.2, 15.7}},  {"bench_b", {408, 99.6}},
    {"jamba-1.3b", {1310, 1310}}, {"jamba-7b", {6870, 6870}}, {"jamba-52b", {51570, 12110}},
};

TEST(ShippedConfigs, EveryModelLoadsAndHasTheSizeItClaims) {
  std::size_t seen = 0;
  for (const fs::path& file : files("models")) {
    const ParameterCount n = count_parameters(load_model_config(file));
    const auto size = kSizes.find(file.stem().string());
    ASSERT_NE(size, kSizes.end()) << file << " is not in the list of sizes";
    EXPECT_NEAR(static_cast<double>(n.total) / 1e6 / size->second.total_millions, 1, 0.005) << file;
    EXPECT_NEAR(static_cast<double>(n.active) / 1e6 / size->second.active_millions, 1, 0.006)
        << file;
    ++seen;
  }
  EXPECT_EQ(seen, kSizes.size());
}

TEST(ShippedConfigs, ThePapers52BModelCountsExactly) {
  const ModelConfig c = load_model_config(kConfigs / "models/jamba-52b.yaml");
  EXPECT_EQ(count_parameters(c).total, 51570323328);
  EXPECT_EQ(count_parameters(c).active, 12110311296);
  EXPECT_EQ(c.layer_map(), "MMeMMeAMeMMeMMeMMeAMeMMeMMeMMeAMeMMeMMeMMeAMeMMe");
}

TEST(ShippedConfigs, TheAblationSizesTakeThePapersExperts) {
  ModelConfig c = load_model_config(kConfigs / "models/jamba-7b.yaml");
  c.num_experts = 16;
  EXPECT_NEAR(static_cast<double>(count_parameters(c).total), 31.0e9, 0.1e9);
  EXPECT_NEAR(static_cast<double>(count_parameters(c).active), 8.49e9, 0.01e9);
  c = load_model_config(kConfigs / "models/jamba-1.3b.yaml");
  c.num_experts = 16;
  EXPECT_NEAR(static_cast<double>(count_parameters(c).total), 4.71e9, 0.01e9);
  EXPECT_NEAR(static_cast<double>(count_parameters(c).active), 1.54e9, 0.01e9);
}

TEST(ShippedConfigs, EveryRunLoads) {
  const std::vector<fs::path> runs = files("runs");
  EXPECT_GE(runs.size(), 2u);
  for (const fs::path& file : runs) EXPECT_NO_THROW(load_run_config(file, {})) << file;
}

TEST(ShippedConfigs, TheQuickStartIsAJambaForTwoRanks) {
  const RunConfig run = load_run_config(kConfigs / "runs/quickstart.yaml", {}, 2);
  EXPECT_EQ(run.model.layer_map(), "MMeMMeAMeMMe");
  EXPECT_GE(run.model.num_experts, 8);
  EXPECT_EQ(run.model.num_experts_per_tok, 2);
  EXPECT_EQ(run.data.sources.size(), 3u);
}

}  // namespace
}  // namespace jamba

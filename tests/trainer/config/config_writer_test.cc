// The resolved config: complete, and read back to the same values.

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/trainer/config/config_files.h"
#include "trainer/config/fields.h"

namespace jamba {
namespace {

using test::ConfigFiles;
using test::kSoundRun;
using ::testing::HasSubstr;

using ConfigWriter = ConfigFiles;

/// Moves every value away from its default, within its range, so that a key that is not carried
/// over shows.
class ChangeEverything : public config::FieldVisitor {
 public:
  void integer(const config::Key&, std::int64_t& value, config::IntegerRange range) override {
    ++count;
    value = contains(range, value + 1) ? value + 1 : value - 1;
  }
  void real(const config::Key&, double& value, config::RealRange range) override {
    ++count;
    value = value / 3 + 0.1;
    EXPECT_TRUE(contains(range, value));
  }
  void boolean(const config::Key&, bool& value) override {
    ++count;
    value = !value;
  }
  void text(const config::Key& key, std::string& value) override {
    ++count;
    value = "\"" + std::string(key.name) + "\": \\ # \t\n\x01 é";
  }
  void choice(const config::Key&, std::size_t& index,
              std::span<const std::string_view> names) override {
    ++count;
    index = (index + 1) % names.size();
  }
  void begin_section(const config::Key&) override {}
  void end_section() override {}
  std::size_t begin_list(const config::Key&, std::size_t) override { return 2; }
  void begin_item(std::size_t) override {}
  void end_item() override {}
  void end_list() override {}

  int count = 0;
};

std::size_t count_values(const nlohmann::json& json) {
  if (!json.is_structured()) return 1;
  std::size_t n = 0;
  for (const auto& part : json) n += count_values(part);
  return n;
}

TEST_F(ConfigWriter, JsonHoldsEveryKey) {
  RunConfig run;
  ChangeEverything change;
  visit_fields(change, run);
  const auto json = nlohmann::json::parse(to_json(run));
  EXPECT_EQ(count_values(json), static_cast<std::size_t>(change.count));
  EXPECT_EQ(json["train"]["dtype"], "bfloat16");
  EXPECT_EQ(json["model"]["mamba_d_state"], 17);
  EXPECT_EQ(json["data"]["sources"][1]["weight"], 1.0 / 3 + 0.1);
}

TEST_F(ConfigWriter, YamlReadsBackToTheSameConfig) {
  RunConfig run = load(kSoundRun, {"optimizer.lr=0.00030000000000000003", "train.seed=1e15",
                                   "data.sources.1={name: b, train: 'x: \"y\" # é'}",
                                   "model.layer_pattern=M Me M Me A Me M Me"});
  EXPECT_EQ(to_json(load(to_yaml(run))), to_json(run));
}

TEST_F(ConfigWriter, YamlCarriesEveryKeyOfEveryKind) {
  RunConfig run;
  ChangeEverything change;
  visit_fields(change, run);
  // Not a sound config, so the values are compared by what the reader says about none of them:
  // every fault is a rule's, none a type's or a missing key.
  const std::string words = faults(to_yaml(run));
  for (const char* fault : {"expected", "unknown key", "is missing", "YAML", "set twice"}) {
    EXPECT_EQ(words.find(fault), std::string::npos) << words;
  }
}

TEST_F(ConfigWriter, YamlExplainsEachKeyAndWhereItCameFrom) {
  const auto path = write("run.yaml", kSoundRun);
  ConfigOrigins origins;
  const RunConfig run =
      load_run_config(path, std::vector<std::string>{"train.seed=3"}, 0, &origins);
  const std::string yaml = without_directory(to_yaml(run, origins));
  EXPECT_THAT(yaml, HasSubstr("  # Optimizer steps of the run. (at least 1; required)\n"
                              "  steps: 100  # from run.yaml:14:3\n"));
  EXPECT_THAT(yaml, HasSubstr("  seed: 3  # from override\n"));
  EXPECT_THAT(yaml, HasSubstr("  micro_batch_size: 1\n"));
  EXPECT_THAT(yaml, HasSubstr("(constant, cosine, wsd)\n  schedule: cosine\n"));
  for (std::size_t begin = 0; begin < yaml.size();) {
    const std::size_t end = yaml.find('\n', begin);
    EXPECT_LE(end - begin, 100u) << yaml.substr(begin, end - begin);
    begin = end + 1;
  }
}

/// Puts one number after the other just outside the range that the table states.
class OutOfRange : public ChangeEverything {
 public:
  explicit OutOfRange(int target) : target_(target) {}

  void integer(const config::Key& key, std::int64_t& value, config::IntegerRange range) override {
    if (!hit(key)) return;
    const bool below = side_ == 0 || range.high == std::numeric_limits<std::int64_t>::max();
    value = below ? range.low - 1 : range.high + 1;
  }
  void real(const config::Key& key, double& value, config::RealRange range) override {
    if (!hit(key)) return;
    const bool below = side_ == 0 || std::isinf(range.high);
    value = below ? range.low - (range.low_end == config::End::open ? 0 : 1) : range.high + 1;
  }
  void boolean(const config::Key&, bool&) override {}
  void text(const config::Key&, std::string&) override {}
  void choice(const config::Key&, std::size_t&, std::span<const std::string_view>) override {}
  std::size_t begin_list(const config::Key&, std::size_t size) override { return size; }

  std::string changed;  // the one that was changed; empty: there are no more

 private:
  bool hit(const config::Key& candidate) {
    const int at = seen_++;
    if (at != target_ / 2) return false;
    side_ = target_ % 2;
    changed = candidate.name;
    return true;
  }
  int target_;
  int side_ = 0;
  int seen_ = 0;
};

TEST_F(ConfigWriter, EveryRangeOfTheTableIsChecked) {
  RunConfig sound = load(kSoundRun, {"model.rope=true"});
  ASSERT_TRUE(check(sound, 1).empty());
  int checked = 0;
  for (int target = 0;; ++target) {
    RunConfig run = sound;
    OutOfRange change(target);
    visit_fields(change, run);
    if (change.changed.empty()) break;
    const std::vector<ConfigFault> faults = check(run, 1);
    const bool named = std::any_of(faults.begin(), faults.end(), [&](const ConfigFault& fault) {
      return fault.key.substr(fault.key.rfind('.') + 1) == change.changed;
    });
    EXPECT_TRUE(named) << change.changed << ", side " << target % 2;
    ++checked;
  }
  EXPECT_GE(checked, 80);
}

TEST(ConfigChanges, NamesEveryKeyThatDiffers) {
  RunConfig before, now;
  EXPECT_TRUE(config_changes(to_json(before), to_json(now)).empty());
  now.optimizer.lr = 0.25;
  now.data.sources = {{"wiki", "train.h5", "", 1.0}};
  const std::vector<std::string> changes = config_changes(to_json(before), to_json(now));
  EXPECT_THAT(changes, ::testing::Contains(HasSubstr("optimizer.lr: 0.25, was ")));
  EXPECT_THAT(changes, ::testing::Contains("data.sources.0.name: now \"wiki\""));
  EXPECT_THAT(config_changes(to_json(now), to_json(before)),
              ::testing::Contains("data.sources.0.name: gone, was \"wiki\""));
  EXPECT_FALSE(config_changes("", to_json(now)).empty());
}

}  // namespace
}  // namespace jamba

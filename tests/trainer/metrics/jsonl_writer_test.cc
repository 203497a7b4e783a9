#include "trainer/metrics/jsonl_writer.h"

#include <gmock/gmock.h>

#include <bit>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/core/errors.h"
#include "tests/trainer/metrics/metrics_fixture.h"

namespace jamba {
namespace {

using nlohmann::json;
using test::message_of;
using test::read_file;
using test::sample_eval;
using test::sample_step;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Jsonl : public test::MetricsTest {
 protected:
  std::vector<json> records() const {
    std::vector<json> out;
    std::ifstream in(file("metrics.jsonl"));
    for (std::string line; std::getline(in, line);) out.push_back(json::parse(line));
    return out;
  }
  std::vector<std::string> kinds_and_steps() const {
    std::vector<std::string> out;
    for (const json& r : records()) {
      out.push_back(r["kind"].get<std::string>() + " " + r["step"].dump());
    }
    return out;
  }
  void write_steps(std::int64_t first, std::int64_t last) const {
    JsonlWriter writer(file("metrics.jsonl"));
    for (std::int64_t step = first; step <= last; ++step) writer.write(sample_step(step));
  }
  void write_raw(const std::string& text) const {
    std::ofstream(file("metrics.jsonl"), std::ios::app | std::ios::binary) << text;
  }
};

TEST_F(Jsonl, HoldsEveryFieldOfAStep) {
  write_steps(1200, 1200);
  const json expected = {{"kind", "step"},
                         {"step", 1200},
                         {"total_steps", 5000},
                         {"tokens", 78'600'000},
                         {"loss", 3.5125},
                         {"lm_loss", 3.4125},
                         {"aux_loss", 1.0625},
                         {"z_loss", 0.25},
                         {"activation_loss", 0.125},
                         {"grad_norm", 0.7125},
                         {"lr", 3e-4},
                         {"step_seconds", 0.5},
                         {"tokens_per_second", 38'200.0},
                         {"mfu", 0.41},
                         {"peak_gflops", 182.0},
                         {"peak_memory_bytes", 1'825'361'100},
                         {"expert_load_max", 1.32},
                         {"expert_entropy", 2.0},
                         {"dropped_rows", 7},
                         {"skipped_steps", 0},
                         {"seconds",
                          {{"matmul", 0.25},
                           {"scan", 0.125},
                           {"attention", 0.0625},
                           {"optimizer", 0.03125},
                           {"communication", 0.015625},
                           {"rest", 0.0078125}}},
                         {"sent_bytes", {{"tp", 4096}, {"world", 96}}},
                         {"seconds_left", 4321.0}};
  EXPECT_THAT(records(), ElementsAre(expected));
}

TEST_F(Jsonl, HoldsEverySourceOfAnEvaluation) {
  JsonlWriter(file("metrics.jsonl")).write(sample_eval(40));
  const json expected = {
      {"kind", "eval"},
      {"step", 40},
      {"mean_loss", 3.875},
      {"sources",
       {{{"name", "wiki"}, {"loss", 3.5}, {"unigram_entropy", 6.75}, {"tokens", 65536}},
        {{"name", "plays"}, {"loss", 4.25}, {"unigram_entropy", 6.5}, {"tokens", 4096}}}}};
  EXPECT_THAT(records(), ElementsAre(expected));
}

TEST_F(Jsonl, NumbersReadBackToTheSameBits) {
  const std::vector<double> hard = {0.1,
                                    1.0 / 3,
                                    -0.0,
                                    5e-324,
                                    std::numeric_limits<double>::max(),
                                    2.2250738585072011e-308,
                                    9007199254740993.0,
                                    static_cast<double>(0.1f),
                                    std::nextafter(1.0, 2.0)};
  JsonlWriter writer(file("metrics.jsonl"));
  for (const double value : hard) {
    StepRecord record;
    record.lm_loss = value;
    writer.write(record);
  }
  const std::vector<json> read = records();
  ASSERT_EQ(read.size(), hard.size());
  for (std::size_t i = 0; i < hard.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint64_t>(read[i]["lm_loss"].get<double>()),
              std::bit_cast<std::uint64_t>(hard[i]))
        << hard[i];
  }
}

TEST_F(Jsonl, WritesNonFiniteNumbersAsNullWithTheirName) {
  StepRecord step = sample_step(1);
  step.lm_loss = std::numeric_limits<double>::quiet_NaN();
  step.grad_norm = std::numeric_limits<double>::infinity();
  step.seconds_left = -std::numeric_limits<double>::infinity();
  EvalRecord eval = sample_eval(1);
  eval.sources[1].loss = std::numeric_limits<double>::quiet_NaN();
  JsonlWriter writer(file("metrics.jsonl"));
  writer.write(step);
  writer.write(eval);
  const std::vector<json> read = records();
  EXPECT_TRUE(read[0]["lm_loss"].is_null());
  EXPECT_EQ(read[0]["loss"], 3.5125);
  EXPECT_EQ(read[0]["non_finite"],
            (json{{"lm_loss", "nan"}, {"grad_norm", "inf"}, {"seconds_left", "-inf"}}));
  EXPECT_FALSE(read[1]["sources"][0].contains("non_finite"));
  EXPECT_EQ(read[1]["sources"][1]["non_finite"], (json{{"loss", "nan"}}));
}

TEST_F(Jsonl, IsOnDiskAfterEachRecordAndAppendsToWhatIsThere) {
  write_steps(1, 2);
  JsonlWriter writer(file("metrics.jsonl"));
  writer.write(sample_step(3));
  EXPECT_THAT(kinds_and_steps(), ElementsAre("step 1", "step 2", "step 3"));
}

TEST_F(Jsonl, TruncatesWhatLiesBeyondTheResumedStep) {
  write_steps(1, 3);
  JsonlWriter(file("metrics.jsonl")).write(sample_eval(3));
  write_steps(4, 6);
  JsonlWriter writer(file("metrics.jsonl"));
  writer.truncate_after(3);
  writer.write(sample_step(4));
  EXPECT_THAT(kinds_and_steps(), ElementsAre("step 1", "step 2", "step 3", "eval 3", "step 4"));
}

TEST_F(Jsonl, TruncatesNothingAtTheLastStepAndAllAtZero) {
  write_steps(1, 3);
  const std::string before = read_file(file("metrics.jsonl"));
  JsonlWriter writer(file("metrics.jsonl"));
  writer.truncate_after(3);
  EXPECT_EQ(read_file(file("metrics.jsonl")), before);
  writer.truncate_after(0);
  EXPECT_EQ(read_file(file("metrics.jsonl")), "");
}

TEST_F(Jsonl, DropsALastLineThatACrashLeftIncomplete) {
  write_steps(1, 2);
  const std::string whole = read_file(file("metrics.jsonl"));
  for (const std::string torn : {"{\"kind\":\"st", "{\"step\":2}"}) {
    write_raw(torn);
    JsonlWriter(file("metrics.jsonl")).truncate_after(9);
    EXPECT_EQ(read_file(file("metrics.jsonl")), whole) << torn;
  }
}

TEST_F(Jsonl, NamesALineThatIsNoRecordAndLeavesTheFileAlone) {
  for (const std::string line : {"hello", "[1]", "{\"kind\":\"step\"}", "{\"step\":1.5}", ""}) {
    std::filesystem::remove(file("metrics.jsonl"));
    write_steps(1, 2);
    write_raw(line + "\n");
    write_steps(3, 4);
    const std::string before = read_file(file("metrics.jsonl"));
    JsonlWriter writer(file("metrics.jsonl"));
    EXPECT_THAT(message_of<DataError>([&] { writer.truncate_after(3); }),
                AllOf(HasSubstr(file("metrics.jsonl") + ":3:"), HasSubstr("'" + line + "'"),
                      HasSubstr("move the file away")));
    EXPECT_EQ(read_file(file("metrics.jsonl")), before);
  }
}

TEST_F(Jsonl, ReplacesTextThatIsNoUtf8) {
  EvalRecord eval = sample_eval(1);
  eval.sources[0].name = "caf\xe9";
  JsonlWriter(file("metrics.jsonl")).write(eval);
  EXPECT_EQ(records()[0]["sources"][0]["name"], "caf\xef\xbf\xbd");
}

}  // namespace
}  // namespace jamba

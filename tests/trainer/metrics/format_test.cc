#include "trainer/metrics/format.h"

#include <gmock/gmock.h>

#include <limits>

#include "tests/trainer/metrics/metrics_fixture.h"

namespace jamba {
namespace {

using test::sample_eval;
using test::sample_step;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(FormatCount, HasThreeFiguresAndASuffix) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(999.4), "999");
  EXPECT_EQ(format_count(999.5), "1.00k");
  EXPECT_EQ(format_count(1234), "1.23k");
  EXPECT_EQ(format_count(9'996), "10.0k");
  EXPECT_EQ(format_count(38'200), "38.2k");
  EXPECT_EQ(format_count(99'960), "100k");
  EXPECT_EQ(format_count(999'600), "1.00M");
  EXPECT_EQ(format_count(78'600'000), "78.6M");
  EXPECT_EQ(format_count(1.25e9), "1.25B");
  EXPECT_EQ(format_count(5.2e16), "52000T");
  EXPECT_EQ(format_count(kNan), "nan");
  EXPECT_EQ(format_count(kInf), "inf");
}

TEST(FormatDuration, HasTwoUnits) {
  EXPECT_EQ(format_duration(0), "0s");
  EXPECT_EQ(format_duration(59.4), "59s");
  EXPECT_EQ(format_duration(59.6), "1m00s");
  EXPECT_EQ(format_duration(185), "3m05s");
  EXPECT_EQ(format_duration(3599.6), "1h00m");
  EXPECT_EQ(format_duration(4321), "1h12m");
  EXPECT_EQ(format_duration(2 * 86400 + 3 * 3600 + 59), "2d03h");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(kNan), "?");
  EXPECT_EQ(format_duration(kInf), "?");
}

TEST(FormatBytes, PicksMiBOrGiB) {
  EXPECT_EQ(format_bytes(std::int64_t{512} << 20), "512 MiB");
  EXPECT_EQ(format_bytes(std::int64_t{1} << 30), "1.00 GiB");
  EXPECT_EQ(format_bytes(1'825'361'100), "1.70 GiB");
}

TEST(StepLine, TellsEveryFigureOnce) {
  EXPECT_EQ(step_line(sample_step(1200)),
            "step 1200/5000 | tokens 78.6M | lm 3.4125 | aux 1.0625 | z 0.2500 | gn 0.713 | "
            "lr 3.00e-04 | 38.2k tok/s | mfu 41% of 182 GF/s | mem 1.70 GiB | load 1.32 | "
            "left 1h12m | dropped 7");
}

TEST(StepLine, NamesSkippedStepsAndNonFiniteLosses) {
  StepRecord record = sample_step(3);
  record.skipped_steps = 2;
  record.lm_loss = kNan;
  record.peak_gflops = 12'345;
  EXPECT_THAT(step_line(record), ::testing::EndsWith(" | skipped 2"));
  EXPECT_THAT(step_line(record), HasSubstr("lm nan"));
  EXPECT_THAT(step_line(record), HasSubstr("of 12.35 TF/s"));
  EXPECT_THAT(step_line(sample_step(3)), Not(HasSubstr("skipped")));
}

TEST(ProgressLine, FillsTheLineUpToTheLastColumnAtAnyWidth) {
  for (int columns = 0; columns < 300; ++columns) {
    EXPECT_EQ(progress_line(sample_step(1200), columns).size(),
              static_cast<std::size_t>(std::max(columns - 1, 0)));
  }
}

TEST(ProgressLine, ShowsWhatFitsInOrderOfImportance) {
  EXPECT_EQ(progress_line(sample_step(1200), 30), " 24% step 1200/5000          ");
  EXPECT_EQ(progress_line(sample_step(1200), 40), " 24% step 1200/5000 | lm 3.4125        ");
  EXPECT_EQ(progress_line(sample_step(1200), 61),
            "[===          ]  24% step 1200/5000 | lm 3.4125 | left 1h12m");
  EXPECT_EQ(progress_line(sample_step(1200), 80),
            "[====              ]  24% step 1200/5000 | lm 3.4125 | left 1h12m | 38.2k tok/s");
  EXPECT_EQ(progress_line(sample_step(1200), 200),
            "[======                      ]  24% step 1200/5000 | lm 3.4125 | left 1h12m | "
            "38.2k tok/s | gn 0.713 | lr 3.00e-04 | mfu 41% of 182 GF/s | mem 1.70 GiB | "
            "load 1.32 | tokens 78.6M | aux 1.0625        ");
}

TEST(ProgressLine, IsFullAtTheEndOnlyAndEmptyWithoutASize) {
  StepRecord record = sample_step(4999);
  EXPECT_THAT(progress_line(record, 80), HasSubstr(" 99% step 4999/5000"));
  record.step = 5000;
  EXPECT_THAT(progress_line(record, 80), StartsWith("[==================] 100% step 5000/5000"));
  record.total_steps = 0;
  EXPECT_THAT(progress_line(record, 80), HasSubstr("]   0% step 5000/0"));
}

TEST(TrafficLine, TellsEveryAxisThatSends) {
  StepRecord r;
  r.sent_bytes = {{"tp", 12'600'000}, {"ends", 0}, {"world", 9'300}};
  EXPECT_EQ(traffic_line(r), "traffic rank 0 sends in a step: tp 12.6MB | world 9.30kB");
}

TEST(EvalLine, TellsEachSourceAndTheMean) {
  EXPECT_EQ(eval_line(sample_eval(1200)),
            "eval step 1200 | wiki 3.5000 (ppl 33.12, 3.25 nats below unigram 6.75) | "
            "plays 4.2500 (ppl 70.11, 2.25 nats below unigram 6.50) | mean 3.8750");
}

}  // namespace
}  // namespace jamba

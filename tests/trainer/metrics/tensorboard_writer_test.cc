#include "trainer/metrics/tensorboard_writer.h"

#include <gmock/gmock.h>

#include <bit>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>

#include "kernels/core/errors.h"
#include "tests/trainer/metrics/metrics_fixture.h"
#include "trainer/metrics/event_file.h"

namespace jamba {
namespace {

using test::message_of;
using test::read_file;
using test::sample_eval;
using test::sample_step;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

/// One field of a protocol-buffer message: numbers for wire types 0, 1 and 5, bytes for 2.
struct Field {
  std::uint64_t number = 0;
  std::string bytes;
};
using Fields = std::multimap<int, Field>;

std::uint64_t read_little_endian(const std::string& in, std::size_t& at, std::size_t width) {
  if (at + width > in.size()) throw std::runtime_error("message ends early");
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < width; ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(in[at + i])} << (8 * i);
  }
  at += width;
  return value;
}

std::uint64_t read_varint(const std::string& in, std::size_t& at) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    const auto byte = static_cast<unsigned char>(in.at(at++));
    value |= std::uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  throw std::runtime_error("varint too long");
}

Fields decode(const std::string& message) {
  Fields fields;
  for (std::size_t at = 0; at < message.size();) {
    const std::uint64_t key = read_varint(message, at);
    Field field;
    switch (key & 7) {
      case 0:
        field.number = read_varint(message, at);
        break;
      case 1:
        field.number = read_little_endian(message, at, 8);
        break;
      case 5:
        field.number = read_little_endian(message, at, 4);
        break;
      case 2: {
        const std::uint64_t size = read_varint(message, at);
        if (at + size > message.size()) throw std::runtime_error("field ends early");
        field.bytes = message.substr(at, size);
        at += size;
        break;
      }
      default:
        throw std::runtime_error("unknown wire type");
    }
    fields.emplace(static_cast<int>(key >> 3), field);
  }
  return fields;
}

const Field& only(const Fields& fields, int number) {
  if (fields.count(number) != 1) throw std::runtime_error("expected one field");
  return fields.find(number)->second;
}

/// CRC-32C bit by bit, as its definition has it.
std::uint32_t slow_crc32c(const std::string& bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = (crc & 1u) ? (crc >> 1) ^ 0x82f63b78u : crc >> 1;
  }
  return crc ^ 0xffffffffu;
}

std::uint32_t slow_masked(const std::string& bytes) {
  const std::uint32_t crc = slow_crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::vector<Fields> read_events(const std::filesystem::path& path) {
  const std::string file = read_file(path);
  std::vector<Fields> events;
  for (std::size_t at = 0; at < file.size();) {
    const std::string length_bytes = file.substr(at, 8);
    const std::uint64_t length = read_little_endian(file, at, 8);
    EXPECT_EQ(read_little_endian(file, at, 4), slow_masked(length_bytes));
    const std::string message = file.substr(at, length);
    at += length;
    EXPECT_EQ(read_little_endian(file, at, 4), slow_masked(message));
    events.push_back(decode(message));
  }
  return events;
}

double wall_time(const Fields& event) { return std::bit_cast<double>(only(event, 1).number); }

std::map<std::string, float> scalars(const Fields& event) {
  std::map<std::string, float> out;
  const Fields summary = decode(only(event, 5).bytes);
  for (const auto& [number, field] : summary) {
    EXPECT_EQ(number, 1);
    const Fields value = decode(field.bytes);
    EXPECT_EQ(value.size(), 2u);
    out[only(value, 1).bytes] =
        std::bit_cast<float>(static_cast<std::uint32_t>(only(value, 2).number));
  }
  return out;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

using Tensorboard = test::MetricsTest;

TEST(Crc32c, HasThePublishedValues) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST_F(Tensorboard, StartsWithTheVersionAndTheTime) {
  const double before = now();
  const TensorboardWriter writer(file("tb"));
  const std::vector<Fields> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(only(events[0], 3).bytes, "brain.Event:2");
  EXPECT_TRUE(wall_time(events[0]) >= before && wall_time(events[0]) <= now());
}

TEST_F(Tensorboard, HoldsEveryFigureOfAStep) {
  TensorboardWriter writer(file("tb"));
  writer.write(sample_step(1200));
  const std::vector<Fields> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(only(events[1], 2).number, 1200u);
  EXPECT_THAT(
      scalars(events[1]),
      UnorderedElementsAre(Pair("train/loss", 3.5125f), Pair("train/lm_loss", 3.4125f),
                           Pair("train/aux_loss", 1.0625f), Pair("train/z_loss", 0.25f),
                           Pair("train/activation_loss", 0.125f), Pair("train/grad_norm", 0.7125f),
                           Pair("train/lr", 3e-4f), Pair("train/skipped_steps", 0.0f),
                           Pair("perf/tokens_per_sec", 38200.0f), Pair("perf/mfu_pct", 41.0f),
                           Pair("perf/peak_gflops", 182.0f), Pair("perf/step_ms", 500.0f),
                           Pair("perf/matmul_ms", 250.0f), Pair("perf/scan_ms", 125.0f),
                           Pair("perf/attention_ms", 62.5f), Pair("perf/optimizer_ms", 31.25f),
                           Pair("perf/communication_ms", 15.625f), Pair("perf/rest_ms", 7.8125f),
                           Pair("mem/peak_GiB", 1.7f), Pair("moe/max_load", 1.32f),
                           Pair("moe/router_entropy", 2.0f), Pair("moe/dropped_rows", 7.0f),
                           Pair("progress/tokens", 78.6e6f), Pair("progress/eta_s", 4321.0f)));
}

TEST_F(Tensorboard, HoldsEverySourceOfAnEvaluation) {
  TensorboardWriter writer(file("tb"));
  writer.write(sample_eval(std::int64_t{1} << 40));  // a varint of several bytes
  const std::vector<Fields> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(only(events[1], 2).number, std::uint64_t{1} << 40);
  EXPECT_THAT(
      scalars(events[1]),
      UnorderedElementsAre(Pair("val/loss", 3.875f), Pair("val/ppl", std::exp(3.875f)),
                           Pair("val/wiki/loss", 3.5f), Pair("val/wiki/unigram_entropy", 6.75f),
                           Pair("val/plays/loss", 4.25f), Pair("val/plays/unigram_entropy", 6.5f)));
}

TEST_F(Tensorboard, HoldsTextForTheTextTab) {
  TensorboardWriter writer(file("tb"));
  const std::string text = "# config\n" + std::string(300, 'x');  // a length of two bytes
  writer.write_text("run/config", text, 7);
  const std::vector<Fields> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(only(events[1], 2).number, 7u);
  const Fields value = decode(only(decode(only(events[1], 5).bytes), 1).bytes);
  EXPECT_EQ(only(value, 1).bytes, "run/config");
  const Fields tensor = decode(only(value, 8).bytes);
  EXPECT_EQ(only(tensor, 1).number, 7u);  // DT_STRING
  EXPECT_EQ(only(tensor, 8).bytes, text);
  const Fields metadata = decode(only(value, 9).bytes);
  EXPECT_EQ(only(decode(only(metadata, 1).bytes), 1).bytes, "text");
  EXPECT_EQ(only(metadata, 4).number, 2u);  // DATA_CLASS_TENSOR
}

TEST_F(Tensorboard, TellsReadersToDropStepsBeyondTheResumedOne) {
  const TensorboardWriter writer(file("tb"), 1200);
  const std::vector<Fields> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(only(events[0], 3).bytes, "brain.Event:2");
  EXPECT_EQ(only(events[1], 2).number, 1201u);
  EXPECT_EQ(only(decode(only(events[1], 7).bytes), 1).number, 1u);  // SessionLog.START
}

TEST_F(Tensorboard, NamesFilesInTheOrderThatTheyWereStarted) {
  const TensorboardWriter first(file("tb")), second(file("tb"), 5);
  EXPECT_THAT(std::filesystem::path(first.path()).filename().string(),
              ::testing::MatchesRegex("events\\.out\\.tfevents\\.[0-9]{10}\\..+"));
  EXPECT_LT(first.path(), second.path());
  // A file from a clock that ran ahead.
  std::ofstream(file("tb/events.out.tfevents.4000000000.elsewhere")).close();
  const TensorboardWriter third(file("tb"), 6);
  EXPECT_LT(file("tb/events.out.tfevents.4000000000.elsewhere"), third.path());
}

TEST_F(Tensorboard, TellsWhyItsDirectoryCannotBe) {
  std::ofstream(file("tb")) << "a file";
  EXPECT_THAT(message_of<CannotCreateError>([&] { TensorboardWriter(file("tb")); }),
              HasSubstr("cannot create TensorBoard directory " + file("tb")));
}

}  // namespace
}  // namespace jamba

#include "kernels/core/trace.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kernels/core/stream.h"

namespace jamba {
namespace {

using nlohmann::json;

json parsed(const Trace& trace, int rank) {
  return json::parse(fmt::format("[{}]", chrome_events(trace, rank)));
}

TEST(Trace, WritesEventsThatChromeReads) {
  Trace trace(10);
  const int lane = trace.lane("comm \"tp\"");
  trace.add(Trace::kComputeLane, "matmul", 1000, 3500);
  trace.add(lane, "all_reduce 2.0 MB", 7'000'000'123'456, 7'000'000'123'457);
  EXPECT_EQ(trace.lane("comm \"tp\""), lane);

  const json events = parsed(trace, 3);
  ASSERT_EQ(events.size(), 4u);
  const json name_of_lane = {{"name", "thread_name"},
                             {"ph", "M"},
                             {"pid", 3},
                             {"tid", 1},
                             {"args", {{"name", "comm \"tp\""}}}};
  EXPECT_EQ(events[0]["args"]["name"], "compute");
  EXPECT_EQ(events[1], name_of_lane);
  const json matmul = {{"name", "matmul"}, {"ph", "X"}, {"pid", 3},
                       {"tid", 0},         {"ts", 1.0}, {"dur", 2.5}};
  EXPECT_EQ(events[2], matmul);
  EXPECT_EQ(events[3]["tid"], 1);
  EXPECT_EQ(events[3]["ts"], 7'000'000'123.456);
  EXPECT_EQ(events[3]["dur"], 0.001);
}

TEST(Trace, IsEmptyBeforeAnythingHappened) { EXPECT_EQ(parsed(Trace(0), 0).size(), 1u); }

TEST(Trace, CountsWhatItHasNoRoomFor) {
  Trace trace(2);
  const Trace::Event* const memory = trace.events().data();
  for (int i = 0; i < 5; ++i) trace.add(0, "matmul", i, i + 1);
  EXPECT_EQ(trace.events().size(), 2u);
  EXPECT_EQ(trace.num_dropped(), 3);
  EXPECT_EQ(trace.events().data(), memory);
}

TEST(Trace, CutsNamesThatAreTooLong) {
  Trace trace(1);
  trace.add(0, std::string(100, 'x'), 0, 1);
  EXPECT_EQ(std::string(trace.events()[0].name.data()), std::string(39, 'x'));
}

TEST(Trace, GetsTheScopesOfAProfile) {
  Stream stream = Stream::cpu(1);
  Trace trace(10);
  { const ProfileScope untraced(stream.profile(), Part::scan); }
  stream.profile().trace = &trace;
  stream.profile().reset();
  const std::int64_t begin = Trace::now_ns();
  { const ProfileScope traced(stream.profile(), Part::attention); }
  const std::int64_t end = Trace::now_ns();
  ASSERT_EQ(trace.events().size(), 1u);
  const Trace::Event& event = trace.events()[0];
  EXPECT_EQ(std::string(event.name.data()), "attention");
  EXPECT_EQ(event.lane, Trace::kComputeLane);
  EXPECT_LE(begin, event.begin_ns);
  EXPECT_LE(event.begin_ns, event.end_ns);
  EXPECT_LE(event.end_ns, end);
  const double seconds = stream.profile()[Part::attention];
  EXPECT_GT(seconds, 0);
  EXPECT_LE(seconds, static_cast<double>(event.end_ns - event.begin_ns) * 1e-9);
}

TEST(Trace, GetsNestedRangesByName) {
  Stream stream = Stream::cpu(1);
  Trace trace(10);
  stream.profile().trace = &trace;
  {
    const Range layer(stream.profile(), "layer 3 mamba+moe forward");
    const ProfileScope part(stream.profile(), Part::matmul, "router");
  }
  ASSERT_EQ(trace.events().size(), 2u);
  const Trace::Event &part = trace.events()[0], &layer = trace.events()[1];
  EXPECT_EQ(std::string(part.name.data()), "router");
  EXPECT_EQ(std::string(layer.name.data()), "layer 3 mamba+moe forward");
  EXPECT_LE(layer.begin_ns, part.begin_ns);
  EXPECT_GE(layer.end_ns, part.end_ns);
}

TEST(ExposedCommunication, IsTheShareOfWaits) {
  Trace trace(10);
  trace.add(0, "matmul", 0, 1000);
  trace.add(0, "wait tp", 100, 200);
  trace.add(0, "wait dp", 900, 1100);
  trace.add(trace.lane("comm dp"), "all_reduce 2.0 MB", 0, 1000);
  EXPECT_DOUBLE_EQ(exposed_communication(trace, 0, 1000), 0.2);
  EXPECT_DOUBLE_EQ(exposed_communication(trace, 150, 250), 0.5);
  EXPECT_DOUBLE_EQ(exposed_communication(trace, 300, 400), 0);
  EXPECT_DOUBLE_EQ(exposed_communication(trace, 5, 5), 0);
}

}  // namespace
}  // namespace jamba

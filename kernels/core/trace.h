#pragma once
// What a rank did and when, for chrome://tracing.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace jamba {

/// Events of one rank, in lanes: "compute" and one "comm <axis>" for each kind of group.
/// Units: nanoseconds of the steady clock, which the ranks of a host share.
/// Memory: all of it is taken at construction; once it is full, further events are only counted.
/// Threads: one.
class Trace {
 public:
  struct Event {
    std::array<char, 40> name;  // cut short if need be, with its zero
    int lane;
    std::int64_t begin_ns, end_ns;
  };
  static constexpr int kComputeLane = 0;

  explicit Trace(std::size_t max_events);

  static std::int64_t now_ns();

  /// The lane of this name, made by the first call.
  int lane(std::string_view name);
  void add(int lane, std::string_view name, std::int64_t begin_ns, std::int64_t end_ns);

  std::span<const Event> events() const { return events_; }
  const std::vector<std::string>& lanes() const { return lanes_; }
  std::int64_t num_dropped() const { return num_dropped_; }

 private:
  std::vector<std::string> lanes_{"compute"};
  std::vector<Event> events_;
  std::int64_t num_dropped_ = 0;
};

/// Names of events that a rank spends blocked in a group of this axis begin with it.
inline constexpr std::string_view kWaitPrefix = "wait ";

/// The events as JSON objects of the Trace Event Format, one a line, separated by commas: between
/// [ and ] they are a file for chrome://tracing. pid is the rank, tid the lane, ts and dur are
/// microseconds.
/// Source: "Trace Event Format",
/// docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
std::string chrome_events(const Trace&, int rank);

/// The share of [begin_ns, end_ns) that the rank was blocked in waits: communication that compute
/// did not hide. 0 for an empty span.
double exposed_communication(const Trace&, std::int64_t begin_ns, std::int64_t end_ns);

}  // namespace jamba

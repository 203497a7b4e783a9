#include "kernels/core/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace jamba {

namespace {

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return result;
}

}  // namespace

Trace::Trace(std::size_t max_events) { events_.reserve(max_events); }

std::int64_t Trace::now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int Trace::lane(std::string_view name) {
  const auto found = std::ranges::find(lanes_, name);
  const auto index = static_cast<int>(found - lanes_.begin());
  if (found == lanes_.end()) lanes_.emplace_back(name);
  return index;
}

void Trace::add(int lane, std::string_view name, std::int64_t begin_ns, std::int64_t end_ns) {
  if (events_.size() == events_.capacity()) {
    ++num_dropped_;
    return;
  }
  Event& event =
      events_.emplace_back(Event{.name = {}, .lane = lane, .begin_ns = begin_ns, .end_ns = end_ns});
  name.copy(event.name.data(), event.name.size() - 1);
}

std::string chrome_events(const Trace& trace, int rank) {
  std::string text;
  for (std::size_t lane = 0; lane < trace.lanes().size(); ++lane) {
    text += fmt::format(
        "{}{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":{},\"tid\":{},"
        "\"args\":{{\"name\":\"{}\"}}}}",
        lane == 0 ? "" : ",\n", rank, lane, escaped(trace.lanes()[lane]));
  }
  for (const Trace::Event& event : trace.events()) {
    text += fmt::format(
        ",\n{{\"name\":\"{}\",\"ph\":\"X\",\"pid\":{},\"tid\":{},\"ts\":{:.3f},\"dur\":{:.3f}}}",
        escaped(event.name.data()), rank, event.lane, static_cast<double>(event.begin_ns) * 1e-3,
        static_cast<double>(event.end_ns - event.begin_ns) * 1e-3);
  }
  return text;
}

double exposed_communication(const Trace& trace, std::int64_t begin_ns, std::int64_t end_ns) {
  if (end_ns <= begin_ns) return 0;
  std::int64_t waited = 0;
  for (const Trace::Event& event : trace.events()) {
    if (!std::string_view(event.name.data()).starts_with(kWaitPrefix)) continue;
    waited += std::max<std::int64_t>(
        0, std::min(end_ns, event.end_ns) - std::max(begin_ns, event.begin_ns));
  }
  return static_cast<double>(waited) / static_cast<double>(end_ns - begin_ns);
}

}  // namespace jamba

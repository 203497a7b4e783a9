#include "tests/support/cuda_emulation/streams.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <mutex>
#include <set>
#include <vector>

#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/cuda_emulation/emulation.h"

struct cudaEvent_st {
  std::uint64_t num_recorded = 0;  // records issued
  std::uint64_t num_reached = 0;   // of those, the last that a stream came to
  bool takes_time = false;
  std::chrono::steady_clock::time_point reached_at;
};

namespace {

struct Work {
  std::string name;
  std::function<bool()> run;
  cudaEvent_t awaited = nullptr;  // may run when num_reached is at least `record`
  std::uint64_t record = 0;
};

}  // namespace

struct cudaStream_st {
  std::deque<Work> queue;
};

namespace cuda_emulation {

namespace {

struct Streams {
  std::set<cudaStream_t> live;
  std::set<cudaEvent_t> live_events;
  std::recursive_mutex mutex;
};

Streams& streams() {
  static Streams* const all = new Streams;  // never destroyed, as device memory
  return *all;
}

void expect_live(cudaStream_t stream) {
  if (stream == nullptr) fail("the null stream: its rules for waiting are not emulated");
  if (!streams().live.contains(stream)) fail("a stream that does not exist, or was destroyed");
}

void expect_live(cudaEvent_t event) {
  if (!streams().live_events.contains(event))
    fail("an event that does not exist, or was destroyed");
}

bool can_run(const Work& work) {
  return work.awaited == nullptr || work.awaited->num_reached >= work.record;
}

bool step();

template <class Done>
void run_until(const Done& done) {
  const std::scoped_lock lock(streams().mutex);
  if (done()) return;
  const DeviceAccess access;
  while (!done()) {
    if (step()) continue;
    bool polls = false;
    std::string waiting;
    for (const cudaStream_t stream : streams().live) {
      if (stream->queue.empty()) continue;
      polls = polls || can_run(stream->queue.front());
      waiting += " " + stream->queue.front().name;
    }
    if (!polls) fail("streams wait for each other for ever:" + waiting);
    sched_yield();
  }
}

}  // namespace

namespace {

/// Does one piece of work, if there is any that can be done.
bool step() {
  std::vector<cudaStream_t> ready;
  for (const cudaStream_t stream : streams().live) {
    if (!stream->queue.empty() && can_run(stream->queue.front())) ready.push_back(stream);
  }
  if (ready.empty()) return false;
  // From a random one on: one that waits for another process must not hold up the rest.
  const std::size_t first = random_below(static_cast<std::uint32_t>(ready.size()));
  for (std::size_t i = 0; i < ready.size(); ++i) {
    std::deque<Work>& queue = ready[(first + i) % ready.size()]->queue;
    if (!queue.front().run()) continue;
    queue.pop_front();
    return true;
  }
  return false;
}

}  // namespace

void make_progress() {
  const std::scoped_lock lock(streams().mutex);
  const HoldOpen hold;
  constexpr int kMostPieces = 256;
  for (int i = 0; i < kMostPieces && step(); ++i) continue;
}

void issue(cudaStream_t stream, std::string name, std::function<bool()> work) {
  const std::scoped_lock lock(streams().mutex);
  expect_live(stream);
  stream->queue.push_back({std::move(name), std::move(work)});
}

void enqueue(cudaStream_t stream, const char* name, std::function<bool()> poll) {
  issue(stream, name, std::move(poll));
}

void drain(cudaStream_t stream) {
  expect_live(stream);
  run_until([&] { return stream->queue.empty(); });
}

void drain_all() {
  run_until([] {
    for (const cudaStream_t stream : streams().live) {
      if (!stream->queue.empty()) return false;
    }
    return true;
  });
}

bool is_idle(cudaStream_t stream) {
  expect_live(stream);
  return stream->queue.empty();
}

}  // namespace cuda_emulation

using cuda_emulation::expect_live;
using cuda_emulation::fail;
using cuda_emulation::streams;

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  if (flags != cudaStreamNonBlocking) fail("a stream that waits for the null stream");
  *stream = new cudaStream_st;
  streams().live.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  expect_live(stream);
  cuda_emulation::drain(stream);
  streams().live.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  cuda_emulation::drain(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (!cuda_emulation::is_idle(stream)) cuda_emulation::make_progress();
  return cuda_emulation::is_idle(stream) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  expect_live(event);
  if (flags != 0) fail("cudaStreamWaitEvent with flags");
  cuda_emulation::issue(stream, "wait for an event", [] { return true; });
  stream->queue.back().awaited = event;
  stream->queue.back().record = event->num_recorded;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (flags != cudaEventDefault && flags != cudaEventDisableTiming) fail("an event with flags");
  *event = new cudaEvent_st;
  (*event)->takes_time = flags == cudaEventDefault;
  streams().live_events.insert(*event);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  expect_live(event);
  streams().live_events.erase(event);  // the object stays: work that was issued still knows it
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  expect_live(event);
  const std::uint64_t number = ++event->num_recorded;
  cuda_emulation::issue(stream, "record of an event", [event, number] {
    event->num_reached = std::max(event->num_reached, number);
    event->reached_at = std::chrono::steady_clock::now();
    return true;
  });
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  expect_live(event);
  if (event->num_reached < event->num_recorded) cuda_emulation::make_progress();
  return event->num_reached >= event->num_recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  expect_live(event);
  cuda_emulation::run_until([&] { return event->num_reached >= event->num_recorded; });
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  for (const cudaEvent_t event : {start, end}) {
    expect_live(event);
    if (!event->takes_time) fail("cudaEventElapsedTime of an event that does not take the time");
    if (event->num_recorded == 0) fail("cudaEventElapsedTime of an event that is in no stream");
    if (event->num_reached < event->num_recorded) return cudaErrorNotReady;
  }
  *milliseconds =
      std::chrono::duration<float, std::milli>(end->reached_at - start->reached_at).count();
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  cuda_emulation::issue(stream, "host function", [=] {
    function(argument);
    return true;
  });
  return cudaSuccess;
}

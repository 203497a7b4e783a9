// The ranks that launch_test.sh starts: each mode is one way for a job to end.

#include <unistd.h>

#include <bit>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "parallel/comm/mpi_session.h"
#include "tests/parallel/collective_cases.h"

namespace jamba {
namespace {

volatile std::sig_atomic_t stop_requested = 0;

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

/// Goes step by step until any rank has seen USR1, as a trainer does.
int run_until_stopped(Communicator& world) {
  Stream stream = Stream::cpu(1);
  for (std::int64_t flag = 0; flag == 0;) {
    sleep_ms(20);
    flag = stop_requested;
    world.all_reduce(stream, Tensor(&flag, DType::i64, {1}), ReduceOp::max);
  }
  std::printf("rank %d saved\n", world.rank());
  return static_cast<int>(ExitCode::preempted);
}

/// Prints the bits of sums over all ranks, on rank 0.
void print_sums(Communicator& world) {
  Stream stream = Stream::cpu(1);
  for (const std::int64_t n : {1, 7, 4099, 200003}) {
    std::vector<float> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = test::rank_value(world.rank(), static_cast<std::int64_t>(i));
    }
    world.start_all_reduce(stream, Tensor(x.data(), DType::f32, {n}), ReduceOp::sum).wait();
    std::uint64_t hash = 0;
    for (const float value : x) hash = hash * 1000003 + std::bit_cast<std::uint32_t>(value);
    if (world.rank() == 0) std::printf("%016lx\n", static_cast<unsigned long>(hash));
  }
}

/// A wait that cannot end: the last rank does `mode`, the others add up over two axes.
void wait_for_the_last(Communicator& world, const std::string& mode) {
  Stream stream = Stream::cpu(1);
  world.set_guards({.timeout_seconds = 1});
  const auto pair = world.split("tp", world.rank() / 2);
  const auto other_pair = world.split("dp", world.rank() % 2);
  std::vector<float> x(1000);
  const Tensor view(x.data(), DType::f32, {1000});
  pair->all_reduce(stream, view);
  if (world.rank() == world.size() - 1) {
    if (mode == "late-sleeps") sleep_ms(60000);
    if (mode == "late-stops") raise(SIGSTOP);
    if (mode == "late-elsewhere") other_pair->broadcast(stream, view, 0);
  }
  pair->all_reduce(stream, view);
}

int run(MpiSession& session, const std::string& mode, int code) {
  Communicator& world = session.world();
  const bool is_last = world.rank() == world.size() - 1;
  world.barrier();
  if (mode == "return") return code;
  if (mode == "size") {
    if (world.rank() == 0) std::printf("%d %d\n", world.size(), session.local_size());
    return 0;
  }
  if (mode == "sums") {
    print_sums(world);
    return 0;
  }
  if (mode == "until-stopped") return run_until_stopped(world);
  if (mode.starts_with("late-")) wait_for_the_last(world, mode);
  // The other ranks wait for the last, which never comes.
  if (is_last && mode == "exit") _exit(code);
  if (is_last && mode == "abort") session.abort(code);
  if (is_last && mode == "kill") raise(SIGKILL);
  if (is_last && mode == "throw") throw DataError("rank without data");
  if (mode == "hang") sleep_ms(60000);
  world.barrier();
  return 0;
}

int unwind(int argc, char** argv, const std::string& mode, int code) {
  try {
    MpiSession session(argc, argv);
    return run(session, mode, code);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}

}  // namespace
}  // namespace jamba

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const int code = argc > 2 ? std::stoi(argv[2]) : 0;
  if (mode == "until-stopped") std::signal(SIGUSR1, [](int) { jamba::stop_requested = 1; });
  if (mode == "hang") std::signal(SIGUSR1, SIG_IGN);
  return jamba::unwind(argc, argv, mode, code);
}

// jamba doctor      under scripts/launch -n 2 to try the ranks, too

#include <omp.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "data/hdf5/file.h"
#include "kernels/core/memory.h"
#include "kernels/core/trace.h"
#include "kernels/linear/peak_rate.h"
#include "trainer/app/command.h"
#include "trainer/app/device_choice.h"
#include "trainer/app/mpi_command.h"
#include "trainer/app/threads.h"

namespace jamba {

namespace {

void say(const char* what, const std::string& words) {
  std::printf("%-12s %s\n", what, words.c_str());
}

void show_devices() {
  const CudaDevices devices = cuda_devices();
  for (const std::string& library : cuda_libraries()) say("cuda", library);
  if (devices.count == 0) {
    say("cuda", "no device: " + devices.why_none);
    if (cuda_libraries().empty())
      say("", "training runs on the CPU; the preset `cuda` builds for GPUs (scripts/build cuda)");
  }
  for (int i = 0; i < devices.count; ++i) {
    std::string peers;
    for (int other = 0; other < devices.count; ++other) {
      if (other == i) continue;
      const bool can = can_access_peer({DeviceKind::cuda, i}, {DeviceKind::cuda, other});
      peers += fmt::format("{}{}", peers.empty() ? "; reads memory of " : ", ",
                           can ? std::to_string(other) : fmt::format("not {}", other));
    }
    say("cuda", fmt::format("device {}: {}{}", i, describe({DeviceKind::cuda, i}), peers));
  }
}

void show_threads(const MpiSession& mpi) {
  const int cores = omp_get_num_procs(), threads = threads_per_rank(0, mpi.local_size());
  std::string words =
      fmt::format("{} cores for this process, {} ranks on this host, {} threads each", cores,
                  mpi.local_size(), threads);
  if (threads * mpi.local_size() > cores)
    words += "; more threads than cores: give each rank fewer (OMP_NUM_THREADS)";
  if (threads * mpi.local_size() < cores)
    words += "; some cores stay idle (OMP_NUM_THREADS, or mpirun's binding to cores)";
  say("threads", words);
}

void show_matmul_rate(const ChosenDevice& chosen, Stream& stream) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    say("matmul", fmt::format("{}: {:.0f} GFLOP/s a rank on {}", dtype_name(dtype),
                              measure_peak_gflops(stream, dtype), describe(chosen.device)));
  }
}

/// Sums 16 MiB over all ranks, where the tensor lies as in training. Returns whether it is right.
bool show_all_reduce(Communicator& world, Stream& stream) {
  if (world.size() == 1) {
    say("all-reduce", "not tried with one rank: scripts/launch -n 2 -- jamba doctor");
    return true;
  }
  constexpr std::int64_t kElements = 4 << 20;
  constexpr int kRounds = 5;
  std::vector<float> values(static_cast<std::size_t>(kElements));
  const Buffer memory(kElements * dtype_bytes(DType::f32), stream.device());
  const Tensor x = memory.tensor(DType::f32, {kElements});
  const Tensor host(values.data(), DType::f32, {kElements});
  double best_seconds = 0;
  bool right = true;
  for (int round = 0; round < kRounds; ++round) {
    std::fill(values.begin(), values.end(), static_cast<float>(world.rank() + 1));
    copy(stream, x, host);
    stream.synchronize();
    world.barrier();
    const std::int64_t begin = Trace::now_ns();
    world.all_reduce(stream, x);
    stream.synchronize();
    const double seconds = static_cast<double>(Trace::now_ns() - begin) * 1e-9;
    best_seconds = round == 0 ? seconds : std::min(best_seconds, seconds);
    copy(stream, host, x);
    const auto expected = static_cast<float>(world.size() * (world.size() + 1) / 2);
    for (const float value : values) right = right && value == expected;
  }
  if (world.rank() == 0) {
    say("all-reduce", fmt::format("{} ranks, 16 MiB: {}, {:.2f} ms, {:.2f} GB/s a rank",
                                  world.size(), right ? "right" : "WRONG SUMS", best_seconds * 1e3,
                                  static_cast<double>(x.bytes()) / best_seconds * 1e-9));
  }
  return right;
}

int run(const DeviceOptions& options) {
  return run_under_mpi("doctor", [&](MpiSession& mpi) {
    Communicator& world = mpi.world();
    const bool speaks = world.rank() == 0;
    if (speaks) {
      say("jamba", JAMBA_VERSION);
      say("mpi", fmt::format("{}, {} ranks, {} on this host", mpi_version(), world.size(),
                             mpi.local_size()));
      say("hdf5", hdf5_version());
      show_threads(mpi);
      show_devices();
    }
    const ChosenDevice chosen = choose_device(options.choice, mpi);
    Stream stream = make_stream(chosen, options.threads, mpi.local_size());
    if (speaks) show_matmul_rate(chosen, stream);
    const bool right = show_all_reduce(world, stream);
    return static_cast<int>(right ? ExitCode::ok : ExitCode::check_failed);
  });
}

}  // namespace

void declare_doctor(CLI::App& app, Action& action) {
  const auto options = std::make_shared<DeviceOptions>();
  declare_device(app, *options);
  app.callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace jamba

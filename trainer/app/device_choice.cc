#include "trainer/app/device_choice.h"

#include <map>

#include "trainer/app/threads.h"
#include "trainer/checkpoint/agreed.h"

namespace jamba {

namespace {

/// What keeps this rank from CUDA; empty if nothing does.
std::string obstacle(int local_rank, int local_size) {
  const CudaDevices devices = cuda_devices();
  if (devices.count == 0) return devices.why_none;
  if (local_rank < devices.count) return "";
  return fmt::format("{} ranks on this host, but {} CUDA devices: start one rank a device",
                     local_size, devices.count);
}

ChosenDevice on_cpu(const std::string& why) {
  return {{}, why.empty() ? "CPU" : fmt::format("CPU; no CUDA: {}", why)};
}

ChosenDevice on_cuda(int index) {
  const Device device{DeviceKind::cuda, index};
  return {device, fmt::format("CUDA: {}", describe(device))};
}

void expect_none(DeviceChoice choice, const std::string& why) {
  if (choice == DeviceChoice::cuda && !why.empty())
    throw UnsupportedError(fmt::format("device cuda: {}", why));
}

}  // namespace

void declare_device(CLI::App& app, DeviceOptions& options) {
  static const std::map<std::string, DeviceChoice> kChoices = {
      {"auto", DeviceChoice::automatic}, {"cpu", DeviceChoice::cpu}, {"cuda", DeviceChoice::cuda}};
  app.add_option("--device", options.choice, "auto (CUDA where there is some), cpu or cuda")
      ->transform(CLI::CheckedTransformer(kChoices));
  app.add_option("--threads", options.threads, "OpenMP threads (default: all)");
}

ChosenDevice choose_device(DeviceChoice choice) {
  if (choice == DeviceChoice::cpu) return on_cpu("");
  const std::string why = obstacle(0, 1);
  expect_none(choice, why);
  return why.empty() ? on_cuda(0) : on_cpu(why);
}

ChosenDevice choose_device(DeviceChoice choice, MpiSession& mpi) {
  if (choice == DeviceChoice::cpu) return on_cpu("");
  std::string why = obstacle(mpi.local_rank(), mpi.local_size());
  agreed(mpi.world(), [&] { expect_none(choice, why); });
  std::int64_t missing = why.empty() ? 0 : 1;
  Stream stream = Stream::cpu(1);
  mpi.world().all_reduce(stream, Tensor(&missing, DType::i64, {1}), ReduceOp::max);
  if (missing == 0) return on_cuda(mpi.local_rank());
  return on_cpu(why.empty() ? "other ranks have none" : why);
}

Stream make_stream(const ChosenDevice& chosen, int threads, int local_ranks) {
  return Stream::on(chosen.device, threads_per_rank(threads, local_ranks));
}

}  // namespace jamba

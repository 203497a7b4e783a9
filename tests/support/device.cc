#include "tests/support/device.h"

#include <cstdlib>
#include <string_view>

#include "kernels/core/backend.h"

namespace cuda_emulation {
JAMBA_WEAK void set_seed(std::uint64_t seed);
namespace check {
JAMBA_WEAK void kernel_begins(const void* arguments, std::size_t bytes);
}
}  // namespace cuda_emulation

namespace jamba::test {

Device device() {
  static const Device chosen = [] {
    const char* const asked = std::getenv("JAMBA_TEST_DEVICE");
    if (asked != nullptr && std::string_view(asked) == "cpu") return Device{};
    return cuda_devices().count > 0 ? Device{DeviceKind::cuda, 0} : Device{};
  }();
  return chosen;
}

bool checks_accesses() { return &cuda_emulation::check::kernel_begins != nullptr; }

Stream make_stream(int num_threads) { return Stream::on(device(), num_threads); }

void for_each_schedule(const std::function<void(Stream&, const std::string& name)>& body) {
  const auto run = [&](int threads, const std::string& name) {
    Stream stream = make_stream(threads);
    body(stream, name);
  };
  if (!on_cuda()) {
    for (const int threads : {1, 1, 2, 3}) run(threads, fmt::format("{} threads", threads));
  } else if (&cuda_emulation::set_seed != nullptr) {
    constexpr int kSchedules = 5;
    for (int seed = 1; seed <= kSchedules; ++seed) {
      cuda_emulation::set_seed(static_cast<std::uint64_t>(seed));
      run(1, fmt::format("schedule {}", seed));
    }
  } else {
    for (const char* const name : {"first run", "second run"}) run(1, name);
  }
}

}  // namespace jamba::test

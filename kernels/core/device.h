#pragma once
// Where data lies and where operations run.

#include <string>
#include <vector>

namespace jamba {

enum class DeviceKind { cpu, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

/// The CUDA devices that this process can use. `why_none` says in words what is missing if count is
/// 0: the program was built without CUDA, or there is no driver or device.
struct CudaDevices {
  int count = 0;
  std::string why_none;
};
CudaDevices cuda_devices();
/// The CUDA libraries that this program holds, each with its version.
std::vector<std::string> cuda_libraries();
/// Whether one CUDA device can read another one's memory by itself.
bool can_access_peer(Device, Device other);

/// Waits until everything that was issued to the device has finished.
void synchronize(Device);

/// Name, multiprocessors, memory; "CPU" for the CPU.
std::string describe(Device);

}  // namespace jamba

#include "kernels/core/device.h"

#include "kernels/core/backend.h"

namespace jamba {

CudaDevices cuda_devices() {
  if (&cuda::num_devices == nullptr) return {.why_none = "this program is built without CUDA"};
  CudaDevices found;
  found.count = cuda::num_devices(found.why_none);
  return found;
}

void synchronize(Device device) {
  if (device.kind == DeviceKind::cuda)
    backend_function(&cuda::synchronize_device, "synchronize")(device.index);
}

std::string describe(Device device) {
  if (device.kind == DeviceKind::cpu) return "CPU";
  return backend_function(&cuda::describe_device, "describe")(device.index);
}

std::vector<std::string> cuda_libraries() {
  std::vector<std::string> out;
  for (auto* const version :
       {&cuda::runtime_version, &cuda::matmul_library_version, &cuda::attention_library_version,
        &cuda::collectives_library_version}) {
    if (version != nullptr) out.push_back(version());
  }
  return out;
}

bool can_access_peer(Device device, Device other) {
  return backend_function(&cuda::can_access_peer, "can_access_peer")(device.index, other.index);
}

}  // namespace jamba

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

}  // namespace jamba

#include "kernels/core/device_times.h"

#include "kernels/core/backend.h"

namespace jamba {

void begin_device_times(Stream& stream) {
  if (stream.device().kind == DeviceKind::cuda) cuda::begin_device_times(stream);
}

void end_device_times(Stream& stream) {
  if (stream.device().kind == DeviceKind::cuda) cuda::end_device_times(stream);
}

}  // namespace jamba

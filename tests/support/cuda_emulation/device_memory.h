#pragma once
// Memory of the emulated devices: closed to the host but while kernels, copies or libraries run.

#include <cstddef>

namespace cuda_emulation {

/// Null if the device has not so much left.
void* allocate(int device, std::size_t bytes);
void release(void* data);

struct Allocation {
  char* begin = nullptr;
  std::size_t bytes = 0;
  int device = 0;
};
/// The live allocation that holds the address; begin is null if there is none.
Allocation find_allocation(const void* address);

std::size_t bytes_allocated(int device);
std::size_t bytes_in_all();

/// JAMBA_EMULATED_DEVICES, 1 if it is not set.
int num_devices();

/// While it lives, device memory that was opened stays open: closing it costs a system call.
class HoldOpen {
 public:
  HoldOpen();
  ~HoldOpen();
  HoldOpen(const HoldOpen&) = delete;
  HoldOpen& operator=(const HoldOpen&) = delete;
};

}  // namespace cuda_emulation

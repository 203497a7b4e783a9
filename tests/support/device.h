#pragma once
// The device that operations are tested on.

#include <functional>

#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba::test {

/// The first CUDA device, where the program has the backend and sees one (programs *_emulated and
/// *_checked always do), else the CPU. JAMBA_TEST_DEVICE=cpu forces the latter.
Device device();
inline bool on_cuda() { return device().kind == DeviceKind::cuda; }

/// Whether every memory access of kernels is checked (*_checked programs), some thirty times
/// slower.
bool checks_accesses();

/// A stream of it. num_threads counts on the CPU.
Stream make_stream(int num_threads = 1);

/// Calls body once for each way to run on the device that must give the same bits, with its name:
/// 1, 1 again, 2 and 3 threads on the CPU; schedules of the emulation; two runs on a real device.
void for_each_schedule(const std::function<void(Stream&, const std::string& name)>& body);

}  // namespace jamba::test

#pragma once
#include "kernels/core/stream.h"

namespace jamba {

// A Profile's seconds are the host's: on the CPU the time that the work took, on CUDA the time to
// issue it. Between these two calls they are the device's own, from marks in the stream (a few
// microseconds for each scope). A scope that waits for another stream counts the time that the
// device stood still for it. On the CPU both do nothing.

/// What is issued to the stream from here on is timed where it runs.
void begin_device_times(Stream&);
/// Waits for the stream and adds what was timed to its profile.
void end_device_times(Stream&);

}  // namespace jamba

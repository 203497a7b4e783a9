#pragma once
// A group that does on devices what it is asked to do in memory of the host.

#include <memory>

#include "parallel/comm/communicator.h"

namespace jamba::test {

/// Each operation's tensors are copied to `device`, go through `inner` there, and come back when it
/// is waited for. So what every group must do (collective_cases.h) is asked of tensors on devices.
/// All ranks make it together.
std::unique_ptr<Communicator> make_device_mirror(std::unique_ptr<Communicator> inner,
                                                 Device device);

}  // namespace jamba::test

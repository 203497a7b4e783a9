#pragma once
// Where data lies and where operations run.

namespace jamba {

enum class DeviceKind { cpu, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

}  // namespace jamba

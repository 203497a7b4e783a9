#pragma once
// Which device a command's rank runs on.

#include <string>

#include "kernels/core/stream.h"
#include "parallel/comm/mpi_session.h"
#include "trainer/app/command.h"
#include "trainer/run_config.h"

namespace jamba {

struct DeviceOptions {
  DeviceChoice choice = DeviceChoice::automatic;
  int threads = 0;  // on the CPU; 0: this rank's share of the cores
};

/// Adds --device and --threads to a command.
void declare_device(CLI::App&, DeviceOptions&);

struct ChosenDevice {
  Device device;
  std::string words;  // what it is, and why it is the CPU where CUDA was looked for in vain
};

/// The device of the command's only rank.
/// Errors: UnsupportedError if CUDA was asked for and is not there, or not for all ranks.
ChosenDevice choose_device(DeviceChoice);
/// The same under MPI, all ranks together: ranks of one host take its CUDA devices in turn, one
/// each. All ranks run on the CPU, or none.
ChosenDevice choose_device(DeviceChoice, MpiSession&);

/// A stream of it.
Stream make_stream(const ChosenDevice&, int threads, int local_ranks = 1);

}  // namespace jamba

#pragma once
// Ranks as threads of one process: tests run every parallel feature with it, and a single rank
// needs no MPI.

#include <functional>

#include "parallel/comm/communicator.h"

namespace jamba {

/// Runs body(communicator) on `size` threads, rank r on thread r, and rethrows the first error.
/// Calls are always compared. A rank that throws wakes all others with CommError, whatever group
/// they wait in. Operations take their input when they start and write their output when they are
/// waited for; between the two the output holds 0xFF bytes (NaN), so that a test sees one that is
/// read too early or written too late.
void run_ranks(int size, const std::function<void(Communicator&)>& body,
               const CommGuards& guards = {});

/// A group of one.
std::unique_ptr<Communicator> make_single_rank();

}  // namespace jamba

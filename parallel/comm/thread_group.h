#pragma once
// Ranks as threads of one process: tests run every parallel feature with it, and a single rank
// needs no MPI.

#include <functional>

#include "parallel/comm/communicator.h"

namespace jamba {

/// Runs body(communicator) on `size` threads, rank r on thread r, and rethrows the first error.
/// A rank that throws wakes all others with CommError.
void run_ranks(int size, const std::function<void(Communicator&)>& body);

/// A group of one.
std::unique_ptr<Communicator> make_single_rank();

}  // namespace jamba

#pragma once
#include <functional>

#include "parallel/comm/mpi_session.h"

namespace jamba {

/// Starts MPI and runs the body of a command on every rank. An error ends all ranks with its exit
/// code: one of all ranks is said once, by rank 0; any other may leave peers blocked in a
/// collective that this rank will not reach, so it ends the job.
int run_under_mpi(const char* command, const std::function<int(MpiSession&)>& body);

}  // namespace jamba

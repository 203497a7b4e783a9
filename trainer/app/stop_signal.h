#pragma once
#include <atomic>

namespace jamba {

/// Makes SIGUSR1, SIGTERM and SIGINT set the returned flag instead of ending the process: training
/// saves at the next step boundary and exits with ExitCode::preempted. Call it before MPI starts;
/// the launcher passes TERM and INT on as USR1. Ignores SIGPIPE, so that a closed terminal does not
/// end a run.
/// The flag lives as long as the process: a signal handler has no other place to reach.
const std::atomic<bool>& catch_stop_signals();

}  // namespace jamba

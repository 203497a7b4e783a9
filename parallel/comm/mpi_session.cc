#include "parallel/comm/mpi_session.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

#include "parallel/comm/mpi_check.h"
#include "parallel/comm/mpi_communicator.h"

namespace jamba {

namespace {

MpiCommunicator& mpi(Communicator& world) { return static_cast<MpiCommunicator&>(world); }

}  // namespace

MpiSession::MpiSession(int& argc, char**& argv) {
  int provided = 0;
  JAMBA_MPI_CHECK(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided), "starting MPI");
  JAMBA_MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "setting up MPI");
  world_ = std::make_unique<MpiCommunicator>();

  MPI_Comm host = MPI_COMM_NULL;
  JAMBA_MPI_CHECK(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world_->rank(),
                                      MPI_INFO_NULL, &host),
                  "finding the ranks of this host");
  JAMBA_MPI_CHECK(MPI_Comm_size(host, &local_size_), "counting the ranks of this host");
  JAMBA_MPI_CHECK(MPI_Comm_rank(host, &local_rank_), "finding this rank on its host");
  JAMBA_MPI_CHECK(MPI_Comm_free(&host), "finding the ranks of this host");
}

MpiSession::~MpiSession() {
  // Finalising waits for all ranks, and they may be blocked in a collective that this one left.
  // Without it the process still ends, and mpirun takes that as a failure and ends the others.
  if (std::uncaught_exceptions() > 0 || !mpi(*world_).idle()) return;
  world_.reset();
  MPI_Finalize();
}

void MpiSession::abort(int exit_code) {
  // mpirun may end the job before it has passed on what was just written.
  constexpr std::chrono::milliseconds kTimeToForwardOutput(150);
  std::fflush(nullptr);
  std::this_thread::sleep_for(kTimeToForwardOutput);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

std::string mpi_version() {
  std::string text(MPI_MAX_LIBRARY_VERSION_STRING, '\0');
  int length = 0;
  JAMBA_MPI_CHECK(MPI_Get_library_version(text.data(), &length), "asking for MPI's version");
  text.resize(static_cast<std::size_t>(length));
  return text.substr(0, text.find_first_of(",\n"));
}

}  // namespace jamba

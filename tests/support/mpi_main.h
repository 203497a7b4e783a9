#pragma once
// The session of an MPI test program; mpi_main.cc is its main.

#include "parallel/comm/mpi_session.h"

namespace jamba::test {

MpiSession& mpi_session();

}  // namespace jamba::test

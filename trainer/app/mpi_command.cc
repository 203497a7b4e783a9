#include "trainer/app/mpi_command.h"

#include <cstdio>

#include "kernels/core/errors.h"

namespace jamba {

int run_under_mpi(const char* command, const std::function<int(MpiSession&)>& body) {
  int argc = 0;
  char** argv = nullptr;
  MpiSession mpi(argc, argv);
  Communicator& world = mpi.world();
  try {
    return body(mpi);
  } catch (const Error& e) {
    if (e.on_all_ranks() || world.size() == 1) {
      if (world.rank() == 0) std::fprintf(stderr, "jamba %s: %s\n", command, e.what());
      return static_cast<int>(e.exit_code());
    }
    std::fprintf(stderr, "jamba %s: rank %d of %d: %s\n", command, world.rank(), world.size(),
                 e.what());
    mpi.abort(static_cast<int>(e.exit_code()));
  }
}

}  // namespace jamba

#include "trainer/app/launch_check.h"

#include <cstdlib>
#include <initializer_list>

#include "kernels/core/errors.h"

namespace jamba {

void check_launcher(int world_size) {
  if (world_size > 1) return;
  // torchrun, srun without PMIx, MPICH's mpiexec: they start processes that OpenMPI takes for
  // singletons.
  for (const char* variable : {"WORLD_SIZE", "SLURM_NTASKS", "PMI_SIZE"}) {
    const char* value = std::getenv(variable);
    const std::int64_t promised = value == nullptr ? 0 : std::strtoll(value, nullptr, 10);
    if (promised <= 1) continue;
    throw ConfigError(fmt::format(
        "{}={} promises {} ranks, but MPI sees 1. Start with scripts/launch -n {} -- jamba train "
        "..., with OpenMPI's mpirun, or with srun --mpi=pmix",
        variable, value, promised, promised));
  }
}

}  // namespace jamba

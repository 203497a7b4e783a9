#include "trainer/app/threads.h"

#include <omp.h>

#include <algorithm>

namespace jamba {

int threads_per_rank(int asked, int local_ranks) {
  if (asked > 0) return asked;
  const int share = std::max(1, omp_get_num_procs() / std::max(1, local_ranks));
  return std::min(share, omp_get_max_threads());
}

}  // namespace jamba

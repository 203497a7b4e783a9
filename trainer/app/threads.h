#pragma once
namespace jamba {

/// Threads for one of `local_ranks` ranks on this host: `asked` if above 0, else its share of the
/// cores that this process may use, at least 1. OMP_NUM_THREADS, if set, bounds the share.
int threads_per_rank(int asked, int local_ranks);

}  // namespace jamba

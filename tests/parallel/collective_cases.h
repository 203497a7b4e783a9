#pragma once
// What every group must do, whatever carries it. Each check runs on all ranks of a group.

#include "parallel/comm/communicator.h"

namespace jamba::test {

void check_all_reduce(Communicator&);
void check_start_all_reduce(Communicator&);
void check_all_gather(Communicator&);
void check_broadcast(Communicator&);
void check_same_bits(Communicator&);
void check_agree(Communicator&);
void check_profile(Communicator&);
void check_refused_arguments(Communicator&);

/// A value that depends on the rank and has rounding errors in every sum.
float rank_value(int rank, std::int64_t index);

}  // namespace jamba::test

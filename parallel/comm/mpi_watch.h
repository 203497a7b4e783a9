#pragma once
// The end of waits that last too long. Private to this folder.

#include "kernels/core/clock.h"
#include "parallel/comm/mpi_operation.h"

namespace jamba {

/// Watches one wait by the group's timeout; without one it does nothing. When it is over, or
/// another rank says that its own is, this rank tells all ranks where it is, hears for half a
/// second at most where they are, and throws CommError naming those it waited for.
class MpiWatch {
 public:
  MpiWatch(const MpiGroup&, MpiOperation&);

  /// Call it while nothing moves.
  void check();

 private:
  double waited_seconds() const;
  [[noreturn]] void fail();

  const MpiGroup& group_;
  MpiOperation& operation_;
  double timeout_seconds_;
  Clock::time_point begin_, next_look_;
};

}  // namespace jamba

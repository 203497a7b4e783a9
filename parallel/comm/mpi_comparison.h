#pragma once
// Whether the ranks of a group ask for the same, found out before anything else is sent.

#include "parallel/comm/call.h"
#include "parallel/comm/mpi_family.h"

namespace jamba {

/// Calls on their way. A collective's ranks all learn what all ask for; of a message, only the
/// receiver learns.
class MpiComparison {
 public:
  MpiComparison(const MpiGroup&, const Operation&);

  /// Whether it is over. CommError if the calls do not fit.
  bool poll();
  std::vector<int> waiting_for() { return requests_.waiting_for(); }

 private:
  void check() const;

  const MpiGroup& group_;
  int peer_;  // of a message, else -1
  OperationKind kind_;
  std::vector<Call> calls_;         // by rank
  std::vector<std::int64_t> rows_;  // [ranks, 2 * ranks]
  MpiRequests requests_;
};

}  // namespace jamba

#pragma once
// Groups of ranks that mpirun started. Private to MpiSession and its tests.

#include <limits>
#include <memory>

#include "parallel/comm/communicator.h"

namespace jamba {

struct MpiComm;
struct MpiFamily;
struct MpiGroup;

/// All ranks (axis "world"), or a part of them by split. MPI must be initialised, and its errors
/// returned, not fatal. Operations in flight must not outlive it.
class MpiCommunicator final : public Communicator {
 public:
  /// All ranks make it together. A message has at most max_count elements; larger ones go in
  /// pieces.
  explicit MpiCommunicator(std::int64_t max_count = std::numeric_limits<int>::max());
  ~MpiCommunicator() override;

  void progress() override;

  /// False once an operation was started and never waited for: MPI cannot be finalised then.
  bool idle() const;

 protected:
  std::unique_ptr<RunningOperation> start(Stream&, const Operation&) override;
  std::unique_ptr<Communicator> do_split(const std::string& axis, int color) override;

 private:
  MpiCommunicator(const std::string& axis, MpiFamily&, MpiComm);

  std::unique_ptr<MpiFamily> own_family_;  // of the group of all ranks
  std::unique_ptr<MpiGroup> group_;
};

}  // namespace jamba

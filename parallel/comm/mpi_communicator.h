#pragma once
// The group of all ranks that mpirun started. Private to MpiSession and its tests.

#include <limits>
#include <vector>

#include "parallel/comm/communicator.h"

namespace jamba {

/// Communicator on MPI_COMM_WORLD; MPI must be initialised, and its errors returned, not fatal.
/// A call of MPI counts in int: larger tensors go in pieces of at most max_count elements.
/// Collectives in flight must not outlive it.
class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(std::int64_t max_count = std::numeric_limits<int>::max());
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_reduce(Stream&, Tensor x, ReduceOp) override;
  std::unique_ptr<PendingCollective> start_all_reduce(Stream&, Tensor x, ReduceOp) override;
  void progress() override;
  void all_gather(Stream&, Tensor out, Tensor x) override;
  void broadcast(Stream&, Tensor x, int root) override;
  void barrier() override;

  /// False once a collective was started and never waited for: MPI cannot be finalised then.
  bool idle() const;

 private:
  class Reduction;

  void broadcast_bytes(void* data, std::int64_t bytes, int root);

  std::int64_t max_count_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<Reduction*> in_flight_;
  bool abandoned_ = false;
};

}  // namespace jamba

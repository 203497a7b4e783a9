#pragma once
// A group of ranks that exchange tensors. Nothing above this interface knows MPI, NCCL or threads.

#include <memory>
#include <string>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

enum class ReduceOp { sum, max };

/// A collective in flight. wait() must be called once; the tensors must live until then.
class PendingCollective {
 public:
  virtual ~PendingCollective() = default;
  virtual void wait() = 0;
};

/// Ranks 0..size-1. Every rank issues the same collectives in the same order.
/// Dtypes: reductions take float32, int64 (sum, max); everything else any dtype.
/// Errors: CommError with the operation and what went wrong; the group is unusable afterwards.
/// Determinism: a reduction gives the same bits on all ranks and in every run of the same size.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// x = reduction of every rank's x, on all ranks.
  virtual void all_reduce(Stream&, Tensor x, ReduceOp) = 0;
  /// Starts the same in the background. progress() between operations keeps it moving.
  virtual std::unique_ptr<PendingCollective> start_all_reduce(Stream&, Tensor x, ReduceOp) = 0;
  /// Gives collectives in flight a chance to move. Cheap.
  virtual void progress() = 0;
  /// out [size, ...]: slice r is rank r's x.
  virtual void all_gather(Stream&, Tensor out, Tensor x) = 0;
  /// Rank root's x, on all ranks.
  virtual void broadcast(Stream&, Tensor x, int root) = 0;
  virtual void barrier() = 0;
};

/// The error of the lowest failing rank, on all ranks: each passes its own message and exit code
/// (empty and 0 for success), all get the same answer. For set-up and checkpoints, where nothing is
/// in flight.
struct Agreement {
  int rank = -1;  // -1: no rank failed
  int exit_code = 0;
  std::string message;
};
Agreement agree(Communicator&, int exit_code, const std::string& message);

}  // namespace jamba

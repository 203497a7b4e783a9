#pragma once
// A group of ranks that exchange tensors. Nothing above this interface knows MPI, NCCL or threads.

#include <memory>
#include <string>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

enum class ReduceOp { sum, max };

/// A collective in flight. wait() must be called once, in the same order on all ranks; until it
/// returns, the tensors must live and their content is unspecified. Destroying one that was not
/// waited for is for unwinding only: the group is unusable afterwards.
class PendingCollective {
 public:
  virtual ~PendingCollective() = default;
  virtual void wait() = 0;
};

/// Ranks 0..size-1. Every rank issues the same collectives in the same order, from one thread.
/// Shapes: a tensor may be empty; each rank passes the same number of elements.
/// Dtypes: reductions take float32, int64 (sum, max); everything else any dtype.
/// Units: blocking operations add their time to the stream's profile as Part::communication.
/// Errors: CommError with the operation and what went wrong; the group is unusable afterwards.
///   LogicError for arguments that no group could accept.
/// Determinism: a reduction gives the same bits on all ranks and in every run of the same size,
///   blocking or not. The maximum of a set with NaN is unspecified.
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
  /// out [size, ...]: slice r is rank r's x. x may be this rank's slice of out.
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

#pragma once
// A group of ranks that exchange tensors. Nothing above this interface knows MPI, NCCL or threads.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "parallel/comm/operation.h"

namespace jamba {

/// A collective in flight, as its caller holds it. Default-constructed: nothing in flight.
/// wait() must be called once; ranks of a group wait for their collectives in the same order. Until
/// it returns, the tensors must live and the outputs are unspecified. Destroying one that was not
/// waited for is for unwinding only: the group is unusable afterwards.
class PendingCollective {
 public:
  PendingCollective() = default;
  /// What was started at `begin_ns` (Trace::now_ns()).
  PendingCollective(Communicator& group, Stream& stream, std::unique_ptr<RunningOperation>,
                    std::string label, std::int64_t begin_ns);
  PendingCollective(PendingCollective&&) noexcept = default;
  PendingCollective& operator=(PendingCollective&&) noexcept = default;

  /// Returns when this rank's part is done; at once if nothing is in flight.
  /// Units: the time spent waiting goes to the stream's profile as Part::communication, and to its
  ///   trace as an event of the compute lane; the operation itself, from its start until it was
  ///   done, as one of its axis's lane.
  void wait();

 private:
  Communicator* group_ = nullptr;
  Stream* stream_ = nullptr;
  std::unique_ptr<RunningOperation> running_;
  std::string label_;  // for the trace; empty if nobody watches
  std::int64_t begin_ns_ = 0;
};

/// How a group guards against ranks that do not do the same; a split inherits it.
struct CommGuards {
  /// Compare what the ranks ask for before each collective and message: operation, dtype, count,
  /// number. Costs a small exchange each; for tests and for hunting bugs. Only for tensors in
  /// memory of the host.
  bool compare_calls = false;
  /// A wait that lasts longer ends with CommError naming the operation, its number in the group and
  /// the ranks that did not come. 0: never. On a device, the wait is the host's for the stream,
  /// counted from when the operation's turn came there; who did not come is not known.
  double timeout_seconds = 0;
};

/// Whether a group's ranks send each other messages (start_send) on a device, beside collectives.
enum class Messages { none, some };

class DeviceGroup;

/// Ranks 0..size-1. Every rank issues the same collectives in the same order, from one thread.
/// Devices: tensors lie in memory of the host, or all of an operation's on the stream's CUDA
/// device.
///   There, operations are issued, as everything on a stream: waiting for one holds up the stream,
///   not the host.
/// Shapes: a tensor may be empty.
/// Dtypes: sums take float32, bfloat16, int64; maxima float32, int64; everything else any dtype.
/// Errors: CommError with the operation, its axis, and what went wrong; the group is unusable
///   afterwards. LogicError for arguments that no group could accept.
/// Determinism: floating-point sums are taken in float32 in one order, whatever the size of the
///   tensor or the way it travels, and rounded once: ranks pairwise, ((0+1)+(2+3))+..., the left
///   part the largest power of two below the number of ranks. So all ranks get the same bits, in
///   every run, blocking or not. The maximum of a set with NaN is unspecified.
class Communicator {
 public:
  virtual ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// What the group is for, such as "world" or "tp": in messages, traffic and traces.
  const std::string& axis() const { return axis_; }

  /// The ranks that give the same color, as a group of their own in the order of their ranks here.
  /// All ranks of this group call it together. The group must not outlive this one.
  std::unique_ptr<Communicator> split(const std::string& axis, int color);

  /// Gets ready for tensors on the stream's device; nothing for the CPU. All ranks of the group
  /// call it together. Otherwise the first collective on a device does it, for collectives alone.
  void prepare(Stream&, Messages);

  /// x = reduction of every rank's x, on all ranks.
  void all_reduce(Stream&, Tensor x, ReduceOp = ReduceOp::sum);
  /// out [n] = sum of every rank's x [size * n], the slice of this rank. out may be that slice of
  /// x.
  void reduce_scatter(Stream&, Tensor out, Tensor x);
  /// out [size * n]: slice r is rank r's x [n]. x may be this rank's slice of out.
  void all_gather(Stream&, Tensor out, Tensor x);
  /// Rows of x go to the ranks, x_rows[r] to rank r, in order; rows from rank r come to out,
  /// out_rows[r] of them. Rows are slices of dim 0. No aliasing.
  void all_to_all(Stream&, Tensor out, Tensor x, std::span<const std::int64_t> out_rows,
                  std::span<const std::int64_t> x_rows);
  /// Rank root's x, on all ranks.
  void broadcast(Stream&, Tensor x, int root);
  void barrier();

  /// The same in the background. progress() between operations keeps them moving.
  PendingCollective start_all_reduce(Stream&, Tensor x, ReduceOp = ReduceOp::sum);
  PendingCollective start_reduce_scatter(Stream&, Tensor out, Tensor x);
  PendingCollective start_all_gather(Stream&, Tensor out, Tensor x);
  PendingCollective start_all_to_all(Stream&, Tensor out, Tensor x,
                                     std::span<const std::int64_t> out_rows,
                                     std::span<const std::int64_t> x_rows);

  /// One message between two ranks of the group. Messages from one rank to another arrive in the
  /// order they were sent; other ranks take no part.
  PendingCollective start_send(Stream&, Tensor x, int to);
  PendingCollective start_receive(Stream&, Tensor x, int from);

  /// Gives everything in flight, of this group and its relatives by split, a chance to move. Cheap.
  virtual void progress() = 0;

  void set_guards(const CommGuards& guards) { guards_ = guards; }
  const CommGuards& guards() const { return guards_; }

  /// Bytes that this rank has sent to others in this group, of the tensors themselves, since it was
  /// made. Closed forms, with p ranks and n bytes of x: all_reduce about 2 n (p-1)/p (each rank
  /// sends the others their parts, then its own sum to all); reduce_scatter n (p-1)/p; all_gather
  /// n (p-1); all_to_all and send what goes to others; broadcast n (p-1)/p on average.
  std::int64_t bytes_sent() const { return bytes_sent_; }

 protected:
  Communicator(std::string axis, int rank, int size);

  /// Starts an operation whose arguments are sound, in a group of more than one. What its spans
  /// name lives only until this returns.
  virtual std::unique_ptr<RunningOperation> start(Stream&, const Operation&) = 0;
  virtual std::unique_ptr<Communicator> do_split(const std::string& axis, int color) = 0;

 private:
  PendingCollective launch(Stream&, Operation);
  std::unique_ptr<RunningOperation> start_anywhere(Stream&, const Operation&);
  std::int64_t next_number(const Operation&);

  std::string axis_;
  int rank_, size_;
  CommGuards guards_;
  std::int64_t bytes_sent_ = 0;
  std::int64_t num_collectives_ = 0;
  std::vector<std::int64_t> num_sent_, num_received_;  // messages, by the other rank
  std::unique_ptr<DeviceGroup> device_group_;
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

#pragma once
// What a group is asked to do, as one value: checked, counted and compared in one place
// (communicator.cc), carried out by each kind of group.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace jamba {

class Communicator;

enum class ReduceOp { sum, max };

enum class OperationKind {
  all_reduce,
  reduce_scatter,
  all_gather,
  all_to_all,
  broadcast,
  barrier,
  send,
  receive
};
const char* operation_name(OperationKind);

struct Operation {
  OperationKind kind;
  // As the Communicator's function of this name has them; one of them may be absent. A barrier is
  // an all_gather of tokens.
  Tensor out{}, x{};
  ReduceOp reduce = ReduceOp::sum;
  int peer = -1;  // root, to, from
  std::span<const std::int64_t> out_rows{}, x_rows{};
  std::int64_t number = 0;  // from 1, of this group; a message's: of those from one rank to another

  bool is_message() const { return kind == OperationKind::send || kind == OperationKind::receive; }
  /// "all_reduce sum of float32[4, 16]"
  std::string describe() const;
  /// "all_reduce 2.0 MB", for traces.
  std::string label() const;
};

/// Where its tensors lie.
Device device_of(const Operation&);

/// LogicError unless this rank of a group can do it. Tensors lie on the CPU, or all on `device`.
void check_arguments(const Operation&, Device device, int rank, int size);

/// What this rank sends to others, in bytes of the tensors (Communicator::bytes_sent).
std::int64_t sent_bytes(const Operation&, int rank, int size);

/// Elements [piece_begin(n, r, p), piece_begin(n, r + 1, p)) of n are summed by rank r of p.
std::int64_t piece_begin(std::int64_t n, int rank, int size);

/// Bytes of one slice of dim 0.
std::int64_t row_bytes(const Tensor&);

/// Copies to out what x holds for this rank itself (all_gather, all_to_all, reduce_scatter).
void copy_own_part(Stream&, const Operation&, int rank);

/// The same bytes elsewhere; none if they are there already.
void copy_bytes(void* to, const void* from, std::int64_t bytes);

/// "all_reduce sum of float32[4, 16] over tp (number 42): waited 5.0 s; not there: rank 1, rank 3"
std::string timeout_message(const Operation&, const std::string& axis, double seconds,
                            const std::vector<std::string>& missing);

/// An operation that a group has started.
class RunningOperation {
 public:
  virtual ~RunningOperation() = default;
  /// Returns when this rank's part is done.
  virtual void finish() = 0;

  /// When it was done, which may have been before finish(): Trace::now_ns(). 0: not yet.
  std::int64_t done_ns() const { return done_ns_; }

 protected:
  void mark_done();

 private:
  std::int64_t done_ns_ = 0;
};

}  // namespace jamba

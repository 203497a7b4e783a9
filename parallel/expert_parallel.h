#pragma once
// Routed rows on their way to the ranks that hold their experts, and back.

#include <span>
#include <vector>

#include "kernels/core/memory.h"
#include "parallel/comm/communicator.h"

namespace jamba {

/// One microbatch's rows of one layer. A rank holds experts [rank, rank + 1) * experts / ep, and
/// every rank's rows for them come to it: first the numbers of rows, then the rows, each with its
/// routing weight, in one exchange. Nothing is dropped, and any number of rows may come, none too.
///
///              there                               back
///   forward    rows with weights (dispatch)        rows (combine)
///   backward   rows (dispatch_gradient)            rows with weights (combine_gradient)
///
/// "Sent" order: as the sender has them, by expert of all. "Held" order: by expert of this rank,
/// and for each by sender.
class ExpertExchange {
 public:
  /// offsets [experts + 1]: this rank's rows by expert, in sent order.
  /// Memory: maps of the rows live on `memory`, and must stay as long as this object is used.
  ExpertExchange(Communicator& ep, Stream&, Arena& memory, std::span<const std::int64_t> offsets);

  std::int64_t num_sent() const { return num_sent_; }
  std::int64_t num_held() const { return num_held_; }
  /// [experts of this rank + 1]: the held rows by expert.
  std::span<const std::int64_t> held_offsets() const { return held_offsets_; }

  /// rows [num_held, model], weight [num_held] = what the ranks sent of x [tokens, model] and
  /// weights [tokens * k]; row r of the sent order is copy slot_of_row[r].
  void dispatch(Stream&, Arena& scratch, Tensor rows, Tensor weight, Tensor x, Tensor weights,
                Tensor slot_of_row, std::int64_t k) const;
  /// rows [num_sent, model] = the held rows, back where they came from.
  void combine(Stream&, Arena& scratch, Tensor rows, Tensor held) const;
  /// drows [num_held, model] = what the ranks sent of dy [tokens, model].
  void dispatch_gradient(Stream&, Arena& scratch, Tensor drows, Tensor dy, Tensor slot_of_row,
                         std::int64_t k) const;
  /// rows and numbers of the held order, back where they came from.
  void combine_gradient(Stream&, Arena& scratch, Tensor rows, Tensor weight, Tensor held,
                        Tensor held_weight) const;
  /// The same in two parts, with other work in between. Memory of scratch is in use until the
  /// second.
  struct Returning {
    Tensor packed;
    PendingCollective pending;
  };
  Returning start_combine_gradient(Stream&, Arena& scratch, Tensor held, Tensor held_weight) const;
  void finish_combine_gradient(Stream&, Tensor rows, Tensor weight, Returning) const;

 private:
  /// Whether held order differs from the order of coming, which is by sender, then expert.
  bool reorders() const { return ep_->size() > 1 && held_offsets_.size() > 2; }

  Communicator* ep_;
  std::int64_t num_sent_ = 0, num_held_ = 0;
  std::vector<std::int64_t> sent_rows_, come_rows_;  // by rank
  std::vector<std::int64_t> held_offsets_;
  Tensor place_come_;  // int32 [num_held]: where held row i stands in the order of coming
  Tensor place_held_;  // its inverse
};

}  // namespace jamba

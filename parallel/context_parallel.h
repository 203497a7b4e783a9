#pragma once
// Sequences that lie across ranks.

#include <vector>

#include "kernels/core/memory.h"
#include "parallel/comm/communicator.h"

namespace jamba {

// Dtypes: float32 or bfloat16, equal.   Aliasing: none.
// Determinism: sums over ranks in float32, in rank order, rounded once.

/// Rank r of `ranks` has tokens [first(r), first(r + 1)) of every sequence, as evenly as it goes;
/// at least one.
struct SequenceSplit {
  std::int64_t whole_seq = 0;
  int ranks = 1;

  std::int64_t first(int rank) const { return whole_seq * rank / ranks; }
  std::int64_t seq(int rank) const { return first(rank + 1) - first(rank); }
};

/// How heads are dealt to context-parallel ranks: rank r attends with heads [first(r), first(r) +
/// count) over the whole sequence. With fewer heads than ranks, neighbours have the same one.
/// One of the two numbers divides the other.
struct HeadDeal {
  std::int64_t heads = 0;
  int ranks = 1;

  std::int64_t count() const { return heads >= ranks ? heads / ranks : 1; }
  /// Ranks that have the same heads.
  std::int64_t copies() const { return heads >= ranks ? 1 : ranks / heads; }
  std::int64_t first(int rank) const { return rank * heads / ranks; }
};

/// Whether attention can deal its heads to the ranks: queries evenly, and each rank the key and
/// value heads of its queries. Else every rank gathers all keys and values.
bool deals_heads(std::int64_t heads, std::int64_t kv_heads, int ranks);

// Tokens for heads, by all-to-all (arXiv:2309.14509).
// Shapes: x [batch * seq, heads * head_dim], this rank's tokens of all heads;
//         whole [batch * whole_seq, count * head_dim], all tokens of this rank's heads.

void tokens_to_heads(Stream&, Arena& scratch, Communicator& cp, Tensor whole, Tensor x,
                     const HeadDeal&, const SequenceSplit&);
/// Its transpose: heads that several ranks have are summed.
void heads_to_tokens(Stream&, Arena& scratch, Communicator& cp, Tensor x, Tensor whole,
                     const HeadDeal&, const SequenceSplit&);

// Keys or values of all tokens up to the end of this rank's.
// Shapes: x [batch * seq, width]; past [batch * first(rank + 1), width].

void gather_past(Stream&, Arena& scratch, Communicator& cp, Tensor past, Tensor x,
                 const SequenceSplit&);
/// Its transpose: x = the sum of all ranks' gradients of this rank's tokens.
void scatter_past(Stream&, Arena& scratch, Communicator& cp, Tensor x, Tensor past,
                  const SequenceSplit&);

// The convolution's halo: the last `taps` tokens of the rank before.
// Shapes: x [batch, seq, inner], seq >= taps; halo [batch, taps, inner]; zero on the first rank.

void receive_halo(Stream&, Arena& scratch, Communicator& cp, Tensor halo, Tensor x);
/// Its transpose: dx += the next rank's gradient of its halo.
void return_halo(Stream&, Arena& scratch, Communicator& cp, Tensor dx, Tensor dhalo);

/// Hands a state [batch, channels, state] on from rank to rank, a block of channels at a time, so
/// that the next rank starts as soon as the first block is there.
class StateChain {
 public:
  enum class Direction { forward, backward };  // from the first rank on, or from the last
  StateChain(Communicator& cp, Direction);

  /// Whether a rank stands before or behind this one in the chain.
  bool receives() const { return from_ >= 0; }
  bool sends() const { return to_ >= 0; }
  /// Waits for channels [begin, begin + count) of `state`. Nothing where no rank stands before.
  void receive(Stream&, Arena& scratch, Tensor state, std::int64_t begin, std::int64_t count);
  /// Passes them on. Memory of scratch is used until finish().
  void send(Stream&, Arena& scratch, Tensor state, std::int64_t begin, std::int64_t count);
  /// Returns when all that was sent has left.
  void finish();

 private:
  Communicator* cp_;
  int from_ = -1, to_ = -1;
  std::vector<PendingCollective> sent_;
};

}  // namespace jamba

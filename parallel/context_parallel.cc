#include "parallel/context_parallel.h"

#include "kernels/pointwise/copy_blocks.h"
#include "kernels/pointwise/pointwise.h"

namespace jamba {

namespace {

enum class Way { join, part };

/// Between parts, by rank then sequence, as they travel, and sequences of `seq` tokens that begin
/// with the ranks' tokens one after the other. Ranks [0, num_ranks).
void move_parts(Stream& stream, Way way, const Tensor& to, const Tensor& from,
                const SequenceSplit& split, std::int64_t batch, int num_ranks, std::int64_t seq) {
  if (to.raw() == from.raw()) return;
  const std::int64_t width = to.cols();
  for (int r = 0; r < num_ranks; ++r) {
    const BlockLayout parts{batch * split.first(r) * width, 0, split.seq(r) * width};
    const BlockLayout whole{split.first(r) * width, 0, seq * width};
    const bool joins = way == Way::join;
    copy_blocks(stream, to, joins ? whole : parts, from, joins ? parts : whole,
                {1, batch, split.seq(r) * width});
  }
}

/// Memory for the parts of `whole`: itself for one sequence, where they lie as they travel.
Tensor parts_of(Arena& scratch, const Tensor& whole, std::int64_t batch) {
  return batch == 1 ? whole : scratch.allocate(whole.dtype(), whole.dims());
}

/// out [n] = sum of terms [count, n], in order, rounded once. out may be the first term.
void sum_terms(Stream& stream, Arena& scratch, Tensor out, Tensor terms) {
  ArenaScope scope(scratch);
  const bool rounds = out.dtype() != DType::f32 && terms.dim(0) > 1;
  const Tensor sum = rounds ? scratch.allocate(DType::f32, out.dims()) : out;
  for (std::int64_t i = 0; i < terms.dim(0); ++i) {
    const Tensor term = terms.slice(i, 1).view({out.numel()});
    if (i > 0) {
      add(stream, sum, term);
    } else if (sum.raw() != term.raw()) {
      cast(stream, sum, term);
    }
  }
  if (rounds) cast(stream, out, sum);
}

/// Rows of each rank's tokens.
std::vector<std::int64_t> rows_of(const SequenceSplit& split, std::int64_t batch) {
  std::vector<std::int64_t> rows;
  for (int r = 0; r < split.ranks; ++r) rows.push_back(batch * split.seq(r));
  return rows;
}

std::vector<std::int64_t> equal_rows(const SequenceSplit& split, std::int64_t rows) {
  return std::vector<std::int64_t>(static_cast<std::size_t>(split.ranks), rows);
}

}  // namespace

bool deals_heads(std::int64_t heads, std::int64_t kv_heads, int ranks) {
  return heads % ranks == 0 && (kv_heads % ranks == 0 || ranks % kv_heads == 0);
}

void tokens_to_heads(Stream& stream, Arena& scratch, Communicator& cp, Tensor whole, Tensor x,
                     const HeadDeal& deal, const SequenceSplit& split) {
  ArenaScope scope(scratch);
  const std::int64_t tokens = x.rows(), head_dim = x.cols() / deal.heads;
  const std::int64_t width = deal.count() * head_dim, batch = whole.rows() / split.whole_seq;
  const Tensor out = scratch.allocate(x.dtype(), {cp.size() * tokens, width});
  const Tensor in = parts_of(scratch, whole, batch);
  for (int r = 0; r < cp.size(); ++r) {
    copy_blocks(stream, out, {r * tokens * width, 0, width}, x,
                {deal.first(r) * head_dim, 0, x.cols()}, {1, tokens, width});
  }
  cp.all_to_all(stream, in, out, rows_of(split, batch), equal_rows(split, tokens));
  move_parts(stream, Way::join, whole, in, split, batch, cp.size(), split.whole_seq);
}

void heads_to_tokens(Stream& stream, Arena& scratch, Communicator& cp, Tensor x, Tensor whole,
                     const HeadDeal& deal, const SequenceSplit& split) {
  ArenaScope scope(scratch);
  const std::int64_t tokens = x.rows(), head_dim = x.cols() / deal.heads;
  const std::int64_t width = deal.count() * head_dim, batch = whole.rows() / split.whole_seq;
  const Tensor out = parts_of(scratch, whole, batch);
  const Tensor in = scratch.allocate(x.dtype(), {cp.size() * tokens, width});
  move_parts(stream, Way::part, out, whole, split, batch, cp.size(), split.whole_seq);
  cp.all_to_all(stream, in, out, equal_rows(split, tokens), rows_of(split, batch));
  const std::int64_t copies = deal.copies(), part = tokens * width;
  for (int r = 0; r < cp.size(); r += static_cast<int>(copies)) {
    const Tensor terms = in.slice(r * tokens, copies * tokens).view({copies, part});
    sum_terms(stream, scratch, terms.slice(0, 1).view({part}), terms);
    copy_blocks(stream, x, {deal.first(r) * head_dim, 0, x.cols()}, in, {r * part, 0, width},
                {1, tokens, width});
  }
}

namespace {

/// Rows that go to the ranks from this one on, and come from those up to this one.
struct PastRows {
  std::vector<std::int64_t> to_later, from_earlier;
  std::int64_t num_later = 0;  // this rank included

  PastRows(const Communicator& cp, const SequenceSplit& split, std::int64_t batch) {
    num_later = cp.size() - cp.rank();
    for (int r = 0; r < cp.size(); ++r) {
      to_later.push_back(r >= cp.rank() ? batch * split.seq(cp.rank()) : 0);
      from_earlier.push_back(r <= cp.rank() ? batch * split.seq(r) : 0);
    }
  }
};

}  // namespace

void gather_past(Stream& stream, Arena& scratch, Communicator& cp, Tensor past, Tensor x,
                 const SequenceSplit& split) {
  ArenaScope scope(scratch);
  const std::int64_t end = split.first(cp.rank() + 1), batch = past.rows() / end;
  const PastRows rows(cp, split, batch);
  const Tensor out = scratch.allocate(x.dtype(), {rows.num_later * x.rows(), x.cols()});
  const Tensor in = parts_of(scratch, past, batch);
  copy_blocks(stream, out, {0, 0, x.numel()}, x, {}, {1, rows.num_later, x.numel()});
  cp.all_to_all(stream, in, out, rows.from_earlier, rows.to_later);
  move_parts(stream, Way::join, past, in, split, batch, cp.rank() + 1, end);
}

void scatter_past(Stream& stream, Arena& scratch, Communicator& cp, Tensor x, Tensor past,
                  const SequenceSplit& split) {
  ArenaScope scope(scratch);
  const std::int64_t end = split.first(cp.rank() + 1), batch = past.rows() / end;
  const PastRows rows(cp, split, batch);
  const Tensor out = parts_of(scratch, past, batch);
  const Tensor in = scratch.allocate(x.dtype(), {rows.num_later * x.rows(), x.cols()});
  move_parts(stream, Way::part, out, past, split, batch, cp.rank() + 1, end);
  cp.all_to_all(stream, in, out, rows.to_later, rows.from_earlier);
  sum_terms(stream, scratch, x.view({x.numel()}), in.view({rows.num_later, x.numel()}));
}

namespace {

/// The last `taps` tokens of each sequence, or the place of them.
BlockLayout tail_of(const Tensor& x, std::int64_t taps) {
  const std::int64_t seq = x.dim(1), inner = x.dim(2);
  return {(seq - taps) * inner, 0, seq * inner};
}

}  // namespace

void receive_halo(Stream& stream, Arena& scratch, Communicator& cp, Tensor halo, Tensor x) {
  ArenaScope scope(scratch);
  const std::int64_t taps = halo.dim(1), width = taps * halo.dim(2);
  const Tensor tail = scratch.allocate(x.dtype(), halo.dims());
  PendingCollective sending, receiving;
  if (cp.rank() + 1 < cp.size()) {
    copy_blocks(stream, tail, {0, 0, width}, x, tail_of(x, taps), {1, x.dim(0), width});
    sending = cp.start_send(stream, tail, cp.rank() + 1);
  }
  if (cp.rank() > 0) {
    receiving = cp.start_receive(stream, halo, cp.rank() - 1);
  } else {
    zero(stream, halo);
  }
  receiving.wait();
  sending.wait();
}

void return_halo(Stream& stream, Arena& scratch, Communicator& cp, Tensor dx, Tensor dhalo) {
  ArenaScope scope(scratch);
  const std::int64_t taps = dhalo.dim(1), width = taps * dhalo.dim(2);
  const Tensor tail = scratch.allocate(dx.dtype(), dhalo.dims());
  PendingCollective sending, receiving;
  if (cp.rank() > 0) sending = cp.start_send(stream, dhalo, cp.rank() - 1);
  if (cp.rank() + 1 < cp.size()) {
    receiving = cp.start_receive(stream, tail, cp.rank() + 1);
    receiving.wait();
    copy_blocks(stream, dx, tail_of(dx, taps), tail, {0, 0, width}, {1, dx.dim(0), width},
                Write::accumulate);
  }
  sending.wait();
}

StateChain::StateChain(Communicator& cp, Direction direction) : cp_(&cp) {
  const int step = direction == Direction::forward ? 1 : -1;
  const auto inside = [&](int rank) { return rank >= 0 && rank < cp.size() ? rank : -1; };
  from_ = inside(cp.rank() - step);
  to_ = inside(cp.rank() + step);
}

void StateChain::receive(Stream& stream, Arena& scratch, Tensor state, std::int64_t begin,
                         std::int64_t count) {
  if (!receives()) return;
  ArenaScope scope(scratch);
  const std::int64_t batch = state.dim(0), width = count * state.dim(2);
  const Tensor block = scratch.allocate(state.dtype(), {batch, count, state.dim(2)});
  cp_->start_receive(stream, block, from_).wait();
  copy_blocks(stream, state, {begin * state.dim(2), 0, state.dim(1) * state.dim(2)}, block,
              {0, 0, width}, {1, batch, width});
}

void StateChain::send(Stream& stream, Arena& scratch, Tensor state, std::int64_t begin,
                      std::int64_t count) {
  if (!sends()) return;
  const std::int64_t batch = state.dim(0), width = count * state.dim(2);
  const Tensor block = scratch.allocate(state.dtype(), {batch, count, state.dim(2)});
  copy_blocks(stream, block, {0, 0, width}, state,
              {begin * state.dim(2), 0, state.dim(1) * state.dim(2)}, {1, batch, width});
  sent_.push_back(cp_->start_send(stream, block, to_));
}

void StateChain::finish() {
  for (PendingCollective& sending : sent_) sending.wait();
  sent_.clear();
}

}  // namespace jamba

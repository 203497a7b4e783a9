#include "parallel/expert_parallel.h"

#include "kernels/moe/pack_rows.h"
#include "kernels/moe/permute.h"

namespace jamba {

ExpertExchange::ExpertExchange(Communicator& ep, Stream& stream, Arena& memory,
                               std::span<const std::int64_t> offsets)
    : ep_(&ep), num_sent_(offsets.back()) {
  const int ranks = ep.size();
  const std::int64_t experts = std::ssize(offsets) - 1, local = experts / ranks;
  JAMBA_CHECK(local * ranks == experts, "{} experts on {} ranks", experts, ranks);

  std::vector<std::int64_t> sent(static_cast<std::size_t>(experts));
  for (std::int64_t e = 0; e < experts; ++e) {
    const auto at = static_cast<std::size_t>(e);
    sent[at] = offsets[at + 1] - offsets[at];
  }
  std::vector<std::int64_t> come(sent.size());  // [sender, expert of this rank]
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(ranks), local);
  ep.all_to_all(stream, Tensor(come.data(), DType::i64, {experts}),
                Tensor(sent.data(), DType::i64, {experts}), counts, counts);

  std::vector<std::int64_t> begin(come.size());  // of each (sender, expert) in the order of coming
  for (int r = 0; r < ranks; ++r) {
    sent_rows_.push_back(offsets[static_cast<std::size_t>((r + 1) * local)] -
                         offsets[static_cast<std::size_t>(r * local)]);
    come_rows_.push_back(0);
    for (std::int64_t e = r * local; e < (r + 1) * local; ++e) {
      begin[static_cast<std::size_t>(e)] = num_held_;
      num_held_ += come[static_cast<std::size_t>(e)];
      come_rows_.back() += come[static_cast<std::size_t>(e)];
    }
  }
  std::vector<std::int32_t> place_come(static_cast<std::size_t>(num_held_));
  std::vector<std::int32_t> place_held(place_come.size());
  held_offsets_.push_back(0);
  std::int64_t held = 0;
  for (std::int64_t e = 0; e < local; ++e) {
    for (int r = 0; r < ranks; ++r) {
      const auto pair = static_cast<std::size_t>(r * local + e);
      for (std::int64_t i = 0; i < come[pair]; ++i, ++held) {
        place_come[static_cast<std::size_t>(held)] = static_cast<std::int32_t>(begin[pair] + i);
        place_held[static_cast<std::size_t>(begin[pair] + i)] = static_cast<std::int32_t>(held);
      }
    }
    held_offsets_.push_back(held);
  }
  const auto on_device = [&](std::vector<std::int32_t>& places) {
    const Tensor t = memory.allocate(DType::i32, {num_held_});
    copy(stream, t, Tensor(places.data(), DType::i32, {num_held_}));
    return t;
  };
  place_come_ = on_device(place_come);
  place_held_ = on_device(place_held);
}

void ExpertExchange::dispatch(Stream& stream, Arena& scratch, Tensor rows, Tensor weight, Tensor x,
                              Tensor weights, Tensor slot_of_row, std::int64_t k) const {
  ArenaScope scope(scratch);
  const std::int64_t bytes = packed_row_bytes(x.dtype(), x.cols());
  const Tensor out = scratch.allocate(DType::u8, {num_sent_, bytes});
  const Tensor in = scratch.allocate(DType::u8, {num_held_, bytes});
  pack_rows(stream, out, x, weights, slot_of_row, k);
  ep_->all_to_all(stream, in, out, come_rows_, sent_rows_);
  unpack_rows(stream, rows, weight, in, place_come_);
}

void ExpertExchange::combine(Stream& stream, Arena& scratch, Tensor rows, Tensor held) const {
  ArenaScope scope(scratch);
  Tensor out = held;
  if (reorders()) {
    out = scratch.allocate(held.dtype(), held.dims());
    permute_forward(stream, out, held, place_held_, 1);
  }
  ep_->all_to_all(stream, rows, out, sent_rows_, come_rows_);
}

void ExpertExchange::dispatch_gradient(Stream& stream, Arena& scratch, Tensor drows, Tensor dy,
                                       Tensor slot_of_row, std::int64_t k) const {
  ArenaScope scope(scratch);
  const Tensor out = scratch.allocate(dy.dtype(), {num_sent_, dy.cols()});
  const Tensor in = reorders() ? scratch.allocate(drows.dtype(), drows.dims()) : drows;
  permute_forward(stream, out, dy, slot_of_row, k);
  ep_->all_to_all(stream, in, out, come_rows_, sent_rows_);
  if (reorders()) permute_forward(stream, drows, in, place_come_, 1);
}

void ExpertExchange::combine_gradient(Stream& stream, Arena& scratch, Tensor rows, Tensor weight,
                                      Tensor held, Tensor held_weight) const {
  ArenaScope scope(scratch);
  finish_combine_gradient(stream, rows, weight,
                          start_combine_gradient(stream, scratch, held, held_weight));
}

ExpertExchange::Returning ExpertExchange::start_combine_gradient(Stream& stream, Arena& scratch,
                                                                 Tensor held,
                                                                 Tensor held_weight) const {
  const std::int64_t bytes = packed_row_bytes(held.dtype(), held.cols());
  const Tensor out = scratch.allocate(DType::u8, {num_held_, bytes});
  const Tensor in = scratch.allocate(DType::u8, {num_sent_, bytes});
  pack_rows(stream, out, held, held_weight, place_held_, 1);
  return {in, ep_->start_all_to_all(stream, in, out, sent_rows_, come_rows_)};
}

void ExpertExchange::finish_combine_gradient(Stream& stream, Tensor rows, Tensor weight,
                                             Returning returning) const {
  returning.pending.wait();
  unpack_rows(stream, rows, weight, returning.packed, {});
}

}  // namespace jamba

#include "parallel/comm/mpi_operation.h"

#include <sched.h>

#include <algorithm>

#include "parallel/comm/mpi_watch.h"
#include "parallel/comm/reduce.h"

namespace jamba {

namespace {

/// What a rank sends another in one round. Without single copy, each poll of MPI moves a bounded
/// number of fragments of every message in flight, so several small ones overlap better than one.
constexpr std::int64_t kPieceBytes = 262144;

std::int64_t longest(const Exchange& exchange) {
  std::int64_t bytes = 0;
  for (const auto* legs : {&exchange.first, &exchange.second}) {
    for (const Leg& leg : *legs) bytes = std::max({bytes, leg.send_bytes, leg.receive_bytes});
  }
  return bytes;
}

/// Bytes of the round that begins at `begin`.
std::int64_t clipped(std::int64_t bytes, std::int64_t begin, std::int64_t piece) {
  return std::clamp<std::int64_t>(bytes - begin, 0, piece);
}

}  // namespace

MpiOperation::MpiOperation(const MpiGroup& group, Stream& stream, const Operation& op)
    : group_(group),
      stream_(stream),
      op_(op),
      exchange_(exchange_of(op, group.ranks.rank(), group.ranks.size())) {
  copy_own_part(stream, op, group.ranks.rank());
  group.family.in_flight.push_back(this);
  if (group.ranks.guards().compare_calls) {
    comparison_ = std::make_unique<MpiComparison>(group, op);
  } else {
    begin();
  }
  op_.out_rows = op_.x_rows = {};
}

MpiOperation::~MpiOperation() {
  MpiFamily& family = group_.family;
  std::erase(family.in_flight, this);
  if (done()) {
    family.buffers.give(std::move(scratch_));
  } else {
    family.abandoned = true;
    family.lost.push_back(std::move(scratch_));
  }
}

void MpiOperation::begin() {
  const Tensor& tensor = op_.x.present() ? op_.x : op_.out;
  const std::int64_t element = dtype_bytes(tensor.dtype());
  const std::int64_t longest_leg = longest(exchange_);
  piece_bytes_ = std::min(kPieceBytes / element, group_.family.max_count) * element;
  num_rounds_ = (longest_leg + piece_bytes_ - 1) / piece_bytes_;
  piece_bytes_ = std::min(piece_bytes_, longest_leg);
  num_running_ = static_cast<int>(std::min<std::int64_t>(kSlots, num_rounds_));
  if (exchange_.sum != nullptr) {
    scratch_ = group_.family.buffers.take(num_running_ * group_.ranks.size() * piece_bytes_);
    parts_.resize(static_cast<std::size_t>(group_.ranks.size()));
  }
  for (Slot& slot : slots_) {
    slot.round = slot_of(slot);
    if (slot.round < num_rounds_) post(slot);
  }
}

std::byte* MpiOperation::received(const Slot& slot, int peer) const {
  return static_cast<std::byte*>(scratch_.data()) +
         (slot_of(slot) * group_.ranks.size() + peer) * piece_bytes_;
}

void MpiOperation::post(Slot& slot) {
  const std::int64_t begin = slot.round * piece_bytes_;
  const std::vector<Leg>& legs = slot.second ? exchange_.second : exchange_.first;
  const MpiTag purpose = op_.is_message() ? MpiTag::message
                         : slot.second    ? MpiTag::second
                                          : MpiTag::first;
  const int tag = mpi_tag(purpose, op_.number, slot_of(slot));
  const int size = group_.ranks.size();
  slot.requests.clear();
  // Each rank begins with its neighbour, so that not all send to the same one.
  for (int step = 1; step < size; ++step) {
    const int from = (group_.ranks.rank() + size - step) % size;
    const Leg& leg = legs[static_cast<std::size_t>(from)];
    const std::int64_t bytes = clipped(leg.receive_bytes, begin, piece_bytes_);
    std::byte* const target = leg.receive != nullptr ? leg.receive + begin : received(slot, from);
    if (bytes > 0) slot.requests.receive(group_, from, target, bytes, tag);
  }
  for (int step = 1; step < size; ++step) {
    const int to = (group_.ranks.rank() + step) % size;
    const Leg& leg = legs[static_cast<std::size_t>(to)];
    const std::int64_t bytes = clipped(leg.send_bytes, begin, piece_bytes_);
    if (bytes > 0) slot.requests.send(group_, to, leg.send + begin, bytes, tag);
  }
}

void MpiOperation::reduce(const Slot& slot) {
  const std::int64_t begin = slot.round * piece_bytes_;
  const std::int64_t bytes = clipped(exchange_.sum_bytes, begin, piece_bytes_);
  for (int rank = 0; rank < group_.ranks.size(); ++rank) {
    parts_[static_cast<std::size_t>(rank)] =
        rank == group_.ranks.rank() ? exchange_.addend + begin : received(slot, rank);
  }
  reduce_parts(stream_, op_.x.dtype(), op_.reduce, exchange_.sum + begin, parts_,
               bytes / dtype_bytes(op_.x.dtype()));
}

bool MpiOperation::advance(Slot& slot) {
  if (!slot.requests.test()) return false;
  if (!slot.second && exchange_.sum_bytes > 0) reduce(slot);
  slot.second = !slot.second && !exchange_.second.empty();
  if (!slot.second) slot.round += kSlots;
  if (slot.round < num_rounds_) {
    post(slot);
  } else {
    --num_running_;
  }
  return true;
}

bool MpiOperation::poll() {
  bool moved = false;
  if (comparison_) {
    if (!comparison_->poll()) return false;
    comparison_.reset();
    begin();
    moved = true;
  }
  for (Slot& slot : slots_) {
    if (slot.round < num_rounds_) moved |= advance(slot);
  }
  if (moved && done()) mark_done();
  return moved;
}

std::vector<int> MpiOperation::waiting_for() {
  if (comparison_) return comparison_->waiting_for();
  std::vector<int> ranks;
  for (Slot& slot : slots_) {
    if (slot.round >= num_rounds_) continue;
    for (const int rank : slot.requests.waiting_for()) {
      if (std::ranges::find(ranks, rank) == ranks.end()) ranks.push_back(rank);
    }
  }
  std::ranges::sort(ranks);
  return ranks;
}

void MpiOperation::finish() {
  MpiWatch watch(group_, *this);
  while (!done()) {
    if (group_.family.poll()) continue;
    watch.check();
    sched_yield();
  }
}

}  // namespace jamba

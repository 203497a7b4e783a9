#include "parallel/comm/exchange.h"

namespace jamba {

namespace {

std::byte* data(const Tensor& x) { return static_cast<std::byte*>(x.raw()); }

void plan_reduction(Exchange& plan, const Operation& op, int rank, int size) {
  const std::int64_t element = dtype_bytes(op.x.dtype());
  const auto begin = [&](int r) { return piece_begin(op.x.numel(), r, size) * element; };
  plan.addend = data(op.x) + begin(rank);
  plan.sum_bytes = begin(rank + 1) - begin(rank);
  plan.sum = op.kind == OperationKind::all_reduce ? plan.addend : data(op.out);
  plan.first.resize(static_cast<std::size_t>(size));
  if (op.kind == OperationKind::all_reduce) plan.second = plan.first;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    const auto at = static_cast<std::size_t>(peer);
    std::byte* const theirs = data(op.x) + begin(peer);
    const std::int64_t their_bytes = begin(peer + 1) - begin(peer);
    plan.first[at] = {theirs, their_bytes, nullptr, plan.sum_bytes};
    if (op.kind == OperationKind::all_reduce) {
      plan.second[at] = {plan.sum, plan.sum_bytes, theirs, their_bytes};
    }
  }
}

void plan_rows(Exchange& plan, const Operation& op, int rank, int size) {
  std::byte* send = data(op.x);
  std::byte* receive = data(op.out);
  for (int peer = 0; peer < size; ++peer) {
    const auto at = static_cast<std::size_t>(peer);
    const std::int64_t send_bytes = op.x_rows[at] * row_bytes(op.x);
    const std::int64_t receive_bytes = op.out_rows[at] * row_bytes(op.out);
    if (peer != rank) plan.first[at] = {send, send_bytes, receive, receive_bytes};
    send += send_bytes;
    receive += receive_bytes;
  }
}

Leg leg_to(const Operation& op, int peer, int rank) {
  switch (op.kind) {
    case OperationKind::all_gather:
    case OperationKind::barrier:
      return {data(op.x), op.x.bytes(), data(op.out) + peer * op.x.bytes(), op.x.bytes()};
    case OperationKind::broadcast:
      if (rank == op.peer) return {data(op.x), op.x.bytes(), nullptr, 0};
      return peer == op.peer ? Leg{nullptr, 0, data(op.x), op.x.bytes()} : Leg{};
    case OperationKind::send:
      return peer == op.peer ? Leg{data(op.x), op.x.bytes(), nullptr, 0} : Leg{};
    case OperationKind::receive:
      return peer == op.peer ? Leg{nullptr, 0, data(op.out), op.out.bytes()} : Leg{};
    default:
      throw LogicError(fmt::format("no messages for {}", op.describe()));
  }
}

}  // namespace

Exchange exchange_of(const Operation& op, int rank, int size) {
  Exchange plan;
  if (op.kind == OperationKind::all_reduce || op.kind == OperationKind::reduce_scatter) {
    plan_reduction(plan, op, rank, size);
    return plan;
  }
  plan.first.resize(static_cast<std::size_t>(size));
  if (op.kind == OperationKind::all_to_all) {
    plan_rows(plan, op, rank, size);
    return plan;
  }
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank) plan.first[static_cast<std::size_t>(peer)] = leg_to(op, peer, rank);
  }
  return plan;
}

}  // namespace jamba

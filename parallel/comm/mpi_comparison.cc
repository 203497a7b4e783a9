#include "parallel/comm/mpi_comparison.h"

#include <algorithm>

namespace jamba {

MpiComparison::MpiComparison(const MpiGroup& group, const Operation& op)
    : group_(group),
      peer_(op.is_message() ? op.peer : -1),
      kind_(op.kind),
      calls_(static_cast<std::size_t>(group.ranks.size())),
      rows_(2 * calls_.size() * calls_.size()) {
  const int rank = group.ranks.rank();
  const std::size_t num_rows = 2 * calls_.size();
  const std::int64_t row_bytes = static_cast<std::int64_t>(num_rows * sizeof(std::int64_t));
  Call& mine = calls_[static_cast<std::size_t>(rank)];
  std::int64_t* const my_rows = &rows_[static_cast<std::size_t>(rank) * num_rows];
  mine = call_of(op);
  std::ranges::copy(call_rows(op, group.ranks.size()), my_rows);

  if (op.is_message()) {
    const int tag = mpi_tag(MpiTag::message_call, op.number, 0);
    if (op.kind == OperationKind::send) {
      requests_.send(group, op.peer, &mine, sizeof(Call), tag);
    } else {
      requests_.receive(group, op.peer, &calls_[static_cast<std::size_t>(op.peer)], sizeof(Call),
                        tag);
    }
    return;
  }
  const int call_tag = mpi_tag(MpiTag::call, op.number, 0);
  const int rows_tag = mpi_tag(MpiTag::rows, op.number, 0);
  for (int peer = 0; peer < group.ranks.size(); ++peer) {
    if (peer == rank) continue;
    const auto at = static_cast<std::size_t>(peer);
    requests_.receive(group, peer, &calls_[at], sizeof(Call), call_tag);
    requests_.receive(group, peer, &rows_[at * num_rows], row_bytes, rows_tag);
    requests_.send(group, peer, &mine, sizeof(Call), call_tag);
    requests_.send(group, peer, my_rows, row_bytes, rows_tag);
  }
}

bool MpiComparison::poll() {
  if (!requests_.test()) return false;
  check();
  return true;
}

void MpiComparison::check() const {
  if (kind_ == OperationKind::send) return;
  const int rank = group_.ranks.rank();
  const std::string problem = kind_ == OperationKind::receive
                                  ? disagreement(calls_[static_cast<std::size_t>(peer_)], peer_,
                                                 calls_[static_cast<std::size_t>(rank)], rank)
                                  : disagreement(calls_, rows_);
  if (!problem.empty()) throw CommError(fmt::format("{}: {}", group_.ranks.axis(), problem));
}

}  // namespace jamba

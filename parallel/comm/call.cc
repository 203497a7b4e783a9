#include "parallel/comm/call.h"

#include <algorithm>

namespace jamba {

namespace {

bool matches(const Call& a, const Call& b) {
  return a.kind == b.kind && a.reduce == b.reduce && a.dtype == b.dtype && a.peer == b.peer &&
         a.count == b.count && a.number == b.number;
}

}  // namespace

Call call_of(const Operation& op) {
  const Tensor& tensor = op.x.present() ? op.x : op.out;
  Call call{.kind = op.kind,
            .reduce = op.reduce,
            .dtype = tensor.dtype(),
            .peer = op.peer,
            .count = op.kind == OperationKind::all_to_all
                         ? row_bytes(tensor) / dtype_bytes(tensor.dtype())
                         : tensor.numel(),
            .number = op.number,
            .text = {}};
  op.describe().copy(call.text, sizeof(call.text) - 1);
  return call;
}

std::vector<std::int64_t> call_rows(const Operation& op, int size) {
  std::vector<std::int64_t> rows(2 * static_cast<std::size_t>(size));
  std::ranges::copy(op.out_rows, rows.begin());
  std::ranges::copy(op.x_rows, rows.begin() + size);
  return rows;
}

std::string disagreement(std::span<const Call> calls, std::span<const std::int64_t> rows) {
  const std::size_t size = calls.size();
  for (std::size_t rank = 1; rank < size; ++rank) {
    if (matches(calls[0], calls[rank])) continue;
    return fmt::format("ranks disagree on a collective: rank 0 calls {}, rank {} calls {}",
                       calls[0].text, rank, calls[rank].text);
  }
  for (std::size_t from = 0; from < size; ++from) {
    for (std::size_t to = 0; to < size; ++to) {
      const std::int64_t sent = rows[from * 2 * size + size + to];
      const std::int64_t expected = rows[to * 2 * size + from];
      if (sent == expected) continue;
      return fmt::format(
          "ranks disagree on a collective: rank {} calls {} with {} rows for rank {}, rank {} "
          "calls {} and expects {} of them",
          from, calls[from].text, sent, to, to, calls[to].text, expected);
    }
  }
  return "";
}

std::string disagreement(const Call& send, int sender, const Call& receive, int receiver) {
  if (send.dtype == receive.dtype && send.count == receive.count && send.number == receive.number) {
    return "";
  }
  return fmt::format("ranks disagree on message {}: rank {} calls {}, rank {} calls {}",
                     receive.number, sender, send.text, receiver, receive.text);
}

}  // namespace jamba

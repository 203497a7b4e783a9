#include "parallel/comm/operation.h"

#include <cstring>
#include <numeric>

#include "kernels/core/memory.h"
#include "kernels/core/trace.h"

namespace jamba {

namespace {

const char* reduce_name(ReduceOp op) { return op == ReduceOp::sum ? "sum" : "max"; }

void check_tensor(const char* name, const Tensor& x) {
  JAMBA_CHECK(x.present(), "{}: no tensor given", name);
}

void check_reduce(const char* name, const Tensor& x, ReduceOp op) {
  check_tensor(name, x);
  const bool fits = x.dtype() == DType::f32 || x.dtype() == DType::i64 ||
                    (x.dtype() == DType::bf16 && op == ReduceOp::sum);
  JAMBA_CHECK(fits, "{}: no {} of {}", name, reduce_name(op), x.describe());
}

/// `whole` is as many elements as `size` times `part`.
void check_parts(const char* name, const Tensor& whole, const Tensor& part, int size) {
  check_tensor(name, whole);
  check_tensor(name, part);
  JAMBA_CHECK(whole.dtype() == part.dtype() && whole.numel() == size * part.numel(),
              "{}: {} ranks of {} do not fill {}", name, size, part.describe(), whole.describe());
}

void check_rows(const Tensor& x, std::span<const std::int64_t> rows, int size) {
  JAMBA_CHECK(x.rank() >= 1, "all_to_all: {} has no rows", x.describe());
  JAMBA_CHECK(static_cast<int>(rows.size()) == size, "all_to_all: {} counts of rows for {} ranks",
              rows.size(), size);
  for (const std::int64_t count : rows) JAMBA_CHECK(count >= 0, "all_to_all: {} rows", count);
  const std::int64_t total = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  JAMBA_CHECK(total == x.dim(0), "all_to_all: {} rows for {}", total, x.describe());
}

void check_all_to_all(const Operation& op, int rank, int size) {
  check_tensor("all_to_all", op.out);
  check_tensor("all_to_all", op.x);
  check_rows(op.out, op.out_rows, size);
  check_rows(op.x, op.x_rows, size);
  JAMBA_CHECK(op.out.dtype() == op.x.dtype() && row_bytes(op.out) == row_bytes(op.x),
              "all_to_all: rows of {} do not fit {}", op.x.describe(), op.out.describe());
  const auto self = static_cast<std::size_t>(rank);
  JAMBA_CHECK(op.out_rows[self] == op.x_rows[self],
              "all_to_all: rank {} sends itself {} rows and expects {}", rank, op.x_rows[self],
              op.out_rows[self]);
}

/// Bytes of the rows for ranks below `rank`.
std::int64_t rows_before(const Tensor& x, std::span<const std::int64_t> rows, int rank) {
  return std::accumulate(rows.begin(), rows.begin() + rank, std::int64_t{0}) * row_bytes(x);
}

}  // namespace

const char* operation_name(OperationKind kind) {
  static constexpr const char* kNames[] = {"all_reduce", "reduce_scatter", "all_gather",
                                           "all_to_all", "broadcast",      "barrier",
                                           "send",       "receive"};
  return kNames[static_cast<int>(kind)];
}

std::string Operation::describe() const {
  std::string text = operation_name(kind);
  if (kind == OperationKind::all_reduce) text += fmt::format(" {}", reduce_name(reduce));
  const Tensor& tensor = x.present() ? x : out;
  if (tensor.present() && kind != OperationKind::barrier) text += " of " + tensor.describe();
  if (kind == OperationKind::send) return text + fmt::format(" to rank {}", peer);
  return peer < 0 ? text : text + fmt::format(" from rank {}", peer);
}

std::string Operation::label() const {
  const auto bytes = static_cast<double>((x.present() ? x : out).bytes());
  if (kind == OperationKind::barrier) return operation_name(kind);
  if (bytes < 1e3) return fmt::format("{} {} B", operation_name(kind), bytes);
  const bool mega = bytes >= 1e6;
  return fmt::format("{} {:.1f} {}", operation_name(kind), bytes / (mega ? 1e6 : 1e3),
                     mega ? "MB" : "kB");
}

void RunningOperation::mark_done() { done_ns_ = Trace::now_ns(); }

Device device_of(const Operation& op) { return (op.x.present() ? op.x : op.out).device(); }

void check_arguments(const Operation& op, Device device, int rank, int size) {
  const char* const name = operation_name(op.kind);
  const Device where = device_of(op);
  JAMBA_CHECK((where.kind == DeviceKind::cpu || where == device) &&
                  (op.out.absent() || op.out.device() == where),
              "{}: {} and {} do not lie on the CPU, nor all on the stream's device", name,
              op.x.describe(), op.out.describe());
  switch (op.kind) {
    case OperationKind::all_reduce:
      return check_reduce(name, op.x, op.reduce);
    case OperationKind::reduce_scatter:
      check_reduce(name, op.x, ReduceOp::sum);
      return check_parts(name, op.x, op.out, size);
    case OperationKind::all_gather:
      return check_parts(name, op.out, op.x, size);
    case OperationKind::all_to_all:
      return check_all_to_all(op, rank, size);
    case OperationKind::barrier:
      return;
    case OperationKind::broadcast:
    case OperationKind::send:
    case OperationKind::receive:
      check_tensor(name, op.kind == OperationKind::receive ? op.out : op.x);
      JAMBA_CHECK(op.peer >= 0 && op.peer < size, "{}: rank {} is not one of {} ranks", name,
                  op.peer, size);
      JAMBA_CHECK(!op.is_message() || op.peer != rank, "{}: rank {} is this rank", name, rank);
  }
}

std::int64_t sent_bytes(const Operation& op, int rank, int size) {
  const std::int64_t others = size - 1;
  switch (op.kind) {
    case OperationKind::all_reduce: {
      const std::int64_t n = op.x.numel();
      const std::int64_t mine = piece_begin(n, rank + 1, size) - piece_begin(n, rank, size);
      return (n - mine + mine * others) * dtype_bytes(op.x.dtype());
    }
    case OperationKind::reduce_scatter:
      return op.out.bytes() * others;
    case OperationKind::all_gather:
      return op.x.bytes() * others;
    case OperationKind::all_to_all:
      return op.x.bytes() - op.x_rows[static_cast<std::size_t>(rank)] * row_bytes(op.x);
    case OperationKind::broadcast:
      return rank == op.peer ? op.x.bytes() * others : 0;
    case OperationKind::send:
      return op.x.bytes();
    case OperationKind::barrier:
    case OperationKind::receive:
      return 0;
  }
  throw LogicError("sent_bytes: not an OperationKind");
}

std::int64_t piece_begin(std::int64_t n, int rank, int size) { return n * rank / size; }

std::int64_t row_bytes(const Tensor& x) {
  std::int64_t bytes = dtype_bytes(x.dtype());
  for (int i = 1; i < x.rank(); ++i) bytes *= x.dim(i);
  return bytes;
}

void copy_bytes(void* to, const void* from, std::int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

void copy_own_part(Stream& stream, const Operation& op, int rank) {
  const auto part = [](const Tensor& t, std::int64_t begin, std::int64_t bytes) {
    return Tensor(static_cast<std::byte*>(t.raw()) + begin, DType::u8, {bytes}, t.device());
  };
  const auto copy_part = [&](std::int64_t to, std::int64_t from, std::int64_t bytes) {
    copy(stream, part(op.out, to, bytes), part(op.x, from, bytes));
  };
  if (op.kind == OperationKind::all_gather) {
    copy_part(rank * op.x.bytes(), 0, op.x.bytes());
  } else if (op.kind == OperationKind::all_to_all) {
    copy_part(rows_before(op.out, op.out_rows, rank), rows_before(op.x, op.x_rows, rank),
              op.x_rows[static_cast<std::size_t>(rank)] * row_bytes(op.x));
  } else if (op.kind == OperationKind::reduce_scatter) {
    copy_part(0, rank * op.out.bytes(), op.out.bytes());
  }
}

std::string timeout_message(const Operation& op, const std::string& axis, double seconds,
                            const std::vector<std::string>& missing) {
  return fmt::format("{} over {} (number {}): waited {:.1f} s; not there: {}", op.describe(), axis,
                     op.number, seconds,
                     missing.empty() ? "nobody" : fmt::format("{}", fmt::join(missing, ", ")));
}

}  // namespace jamba

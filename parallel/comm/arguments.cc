#include "parallel/comm/arguments.h"

#include "kernels/core/errors.h"

namespace jamba {

namespace {

void check_tensor(const char* op, const Tensor& x) {
  JAMBA_CHECK(x.present(), "{}: no tensor given", op);
  if (x.device().kind != DeviceKind::cpu) {
    throw UnsupportedError(fmt::format("{}: {} is not in CPU memory", op, x.describe()));
  }
}

}  // namespace

const char* reduce_op_name(ReduceOp op) { return op == ReduceOp::sum ? "sum" : "max"; }

void check_reduce(const char* op, const Tensor& x) {
  check_tensor(op, x);
  JAMBA_CHECK(x.dtype() == DType::f32 || x.dtype() == DType::i64,
              "{}: reductions take float32 or int64, got {}", op, x.describe());
}

void check_all_gather(const Tensor& out, const Tensor& x, int size) {
  check_tensor("all_gather", out);
  check_tensor("all_gather", x);
  JAMBA_CHECK(out.dtype() == x.dtype() && out.numel() == size * x.numel(),
              "all_gather: {} ranks of {} do not fill {}", size, x.describe(), out.describe());
}

void check_broadcast(const Tensor& x, int root, int size) {
  check_tensor("broadcast", x);
  JAMBA_CHECK(root >= 0 && root < size, "broadcast: root {} is not one of {} ranks", root, size);
}

Tensor gathered_slice(const Tensor& out, const Tensor& x, int rank) {
  auto* const begin = static_cast<std::byte*>(out.raw()) + rank * x.bytes();
  return Tensor(begin, x.dtype(), {x.numel()}, x.device());
}

}  // namespace jamba

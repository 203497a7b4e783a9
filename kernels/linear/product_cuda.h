#pragma once
// The one matrix product of the CUDA backend, by cuBLASLt. Private to kernels/linear.

#include "kernels/core/stream.h"
#include "kernels/linear/matmul.h"

namespace jamba::cuda {

/// The three products of a linear layer y = x w^T, by what they make; matrices as in matmul.h.
/// form   a           b           c
/// y      x [m, k]    w [n, k]    y [m, n]
/// dx     dy [m, k]   w [k, n]    dx [m, n]
/// dw     dy [k, m]   x [k, n]    dw [m, n]
enum class Form { y, dx, dw };

struct Product {
  Form form;
  Write write;
  DType dtype;         // of a and b
  DType result_dtype;  // of c
  std::int64_t m, n, k;
  const void* a;
  const void* b;
  void* c;
  const void* bias = nullptr;  // [n], in c's dtype; form y only
};

/// c = a b + bias, or c += a b + bias. Sums in float32: no TF32 for float32 inputs.
/// Kernels are chosen by cuBLASLt's heuristics once a shape, dtypes and alignment, and kept with
/// the stream. Only such are asked for that reduce in a fixed order. Scratch: 32 MiB at most.
/// Errors: UnsupportedError with the shape if cuBLASLt has no kernel for it.
void multiply(Stream&, Arena& scratch, const Product&);

}  // namespace jamba::cuda

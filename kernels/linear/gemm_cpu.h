#pragma once
// The one matrix product of the CPU backend: packed panels, a register-blocked kernel, tiles that
// run in parallel.

#include <span>

#include "kernels/core/stream.h"
#include "kernels/linear/matmul.h"

namespace jamba::cpu {

/// The three products of a linear layer y = x w^T, by what they make.
enum class Form { y, dx, dw };

/// One product for every expert. Expert e owns rows [offsets[e], offsets[e + 1]) of the tensors
/// that have a row per token; a plain linear layer is the case of one expert.
/// form   a                 b                    c
/// y      x [rows, in]      w [experts, out, in] y [rows, out]
/// dx     dy [rows, out]    w [experts, out, in] dx [rows, in]
/// dw     dy [rows, out]    x [rows, in]         dw [experts, out, in]
struct GroupedProduct {
  Form form;
  Write write;
  DType dtype;         // of a and b
  DType result_dtype;  // of c
  std::int64_t in, out;
  const void* a;
  const void* b;
  void* c;
  std::span<const std::int64_t> offsets;
};

/// Computes all experts' products on the stream's threads.
/// Determinism: an element of c is one chain of fused multiply-adds a K-block, and its K-blocks are
/// added in order. That depends on K alone: not on the number of threads, not on the other rows.
void grouped_product(Stream&, const GroupedProduct&);

}  // namespace jamba::cpu

#pragma once
// One description of an operation, and the checks that every operation must pass.

#include <complex>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba::test {

/// The scalar reference computes in this type: real parts are the value in double precision,
/// imaginary parts carry a derivative (complex step: no cancellation, exact to 1e-15).
using Scalar = std::complex<double>;
using Values = std::vector<Scalar>;

struct Operand {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> dims;
  std::vector<double> values = {};    // inputs only
  bool differentiable = true;         // false: ids, saved statistics, ...
  bool gradient_accumulates = false;  // inputs only: backward adds to it (parameters)
  DType gradient_dtype = DType::f32;  // inputs only; parameters' gradients are float32
};

/// A differentiable operation under test.
struct OpCase {
  std::string name;
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;

  /// All outputs from all inputs, one scalar at a time. References that branch compare real parts.
  std::function<std::vector<Values>(const std::vector<Values>& inputs)> reference;
  std::function<void(Stream&, Arena&, std::span<const Tensor> inputs,
                     std::span<const Tensor> outputs)>
      forward;
  /// Leave empty for an operation without backward. Gradients of inputs that are not
  /// differentiable are absent.
  std::function<void(Stream&, Arena&, std::span<const Tensor> inputs,
                     std::span<const Tensor> outputs, std::span<const Tensor> output_gradients,
                     std::span<const Tensor> input_gradients)>
      backward;

  /// Bounds on worst_error (tests/support/tensors.h). The bfloat16 one holds for every tensor of a
  /// case that has a bfloat16 operand, since rounded intermediates reach them all.
  double tolerance_f32 = 1e-5;
  double tolerance_bf16 = 1.6e-2;
  /// Units in the last place, for each element of forward's bfloat16 outputs. More than one only
  /// where the operation says that it rounds in between.
  double ulps_bf16 = 1;
};

/// Runs all checks of one case as GoogleTest expectations, on device(); on the CPU with every
/// instruction set that this machine has (AVX-512, AVX2, SSE4, SSSE3, scalar):
///  - forward equals the reference in double precision, bfloat16 outputs to ulps_bf16;
///  - each gradient equals the complex-step derivative of the reference, and accumulates or
///    overwrites as stated;
///  - nothing outside the tensors is written, scratch starts as NaN;
///  - every schedule (tests/support/device.h) gives the same bits.
void check_op(const OpCase&);

/// The bound that holds for this case.
double tolerance(const OpCase&);

}  // namespace jamba::test

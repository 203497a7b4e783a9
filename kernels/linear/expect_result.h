#pragma once
#include "kernels/core/tensor.h"

namespace jamba {

/// A product's result holds its inputs' dtype or float32.   Errors: LogicError.
inline void expect_result(const char* what, const Tensor& t, DType dtype,
                          std::initializer_list<std::int64_t> dims) {
  expect_float_tensor(what, t, dims);
  JAMBA_CHECK(t.dtype() == DType::f32 || t.dtype() == dtype,
              "{} is {}; of inputs in {} it may hold that or float32", what, t.describe(),
              dtype_name(dtype));
}

}  // namespace jamba

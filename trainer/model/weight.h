#pragma once
#include "kernels/core/tensor.h"
#include "kernels/linear/matmul.h"

namespace jamba {

/// A parameter as layers see it. Parameters keeps it up to date: its memory may be elsewhere in
/// every pass.
struct Weight {
  Tensor value;
  Tensor grad;  // absent outside training
  /// What a matrix product does with grad: the first one of a step need not find zeros.
  Write write = Write::accumulate;
  bool present() const { return value.present(); }
};

}  // namespace jamba

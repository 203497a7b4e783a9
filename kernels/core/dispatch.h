#pragma once
// From an operation to its implementation on the stream's device.

#include "kernels/core/errors.h"
#include "kernels/core/stream.h"

/// Declares cpu::function with the type of the public function. The backend may rely on the
/// checks that the public function made.
#define JAMBA_DECLARE_BACKENDS(function) \
  namespace cpu {                        \
  decltype(jamba::function) function;    \
  }                                      \
  static_assert(true)

/// Calls the implementation of `function` for the stream's device. Once per operation, in its .cc.
#define JAMBA_DISPATCH(function, stream, ...)                                        \
  do {                                                                               \
    if ((stream).device().kind != ::jamba::DeviceKind::cpu)                          \
      throw ::jamba::UnsupportedError(#function ": this build has no CUDA backend"); \
    cpu::function(stream __VA_OPT__(, ) __VA_ARGS__);                                \
  } while (false)

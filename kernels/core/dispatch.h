#pragma once
// From an operation to its implementation on the stream's device.

#include "kernels/core/backend.h"
#include "kernels/core/errors.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

/// Declares cpu::function and cuda::function with the type of the public function. A backend may
/// rely on the checks that the public function made.
#define JAMBA_DECLARE_BACKENDS(function)         \
  namespace cpu {                                \
  decltype(jamba::function) function;            \
  }                                              \
  namespace cuda {                               \
  JAMBA_WEAK decltype(jamba::function) function; \
  }                                              \
  static_assert(true)

/// Calls the implementation of `function` for the stream's device. Once per operation, in its .cc.
#define JAMBA_DISPATCH(function, stream, ...)                                                   \
  do {                                                                                          \
    ::jamba::expect_device(#function, stream __VA_OPT__(, ) __VA_ARGS__);                       \
    if ((stream).device().kind == ::jamba::DeviceKind::cpu)                                     \
      cpu::function(stream __VA_OPT__(, ) __VA_ARGS__);                                         \
    else                                                                                        \
      ::jamba::backend_function(&cuda::function, #function)(stream __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)

namespace jamba {

/// Throws LogicError if an argument is a tensor that lies elsewhere than the stream runs.
template <class... Args>
void expect_device(const char* function, Stream& stream, const Args&... args) {
  const auto check = [&]<class Arg>(const Arg& arg) {
    if constexpr (std::is_same_v<Arg, Tensor>) {
      JAMBA_CHECK(arg.absent() || arg.device() == stream.device(),
                  "{}: {} lies on another device than the stream's", function, arg.describe());
    }
  };
  (check(args), ...);
}

}  // namespace jamba

#pragma once
// Checked calls of MPI. Private to this folder: no other header includes mpi.h.

#include <fmt/format.h>
#include <mpi.h>

#include <string>

#include "kernels/core/errors.h"

namespace jamba {

/// Throws CommError: what was going on, the call as written, MPI's own message, the place.
[[noreturn]] void fail_mpi(const char* file, int line, const char* call, int code,
                           const std::string& what);

}  // namespace jamba

/// Evaluates an MPI call and throws CommError if it fails. The further arguments are a fmt format
/// string and its values: the operation and its sizes.
#define JAMBA_MPI_CHECK(call, ...)                                                              \
  do {                                                                                          \
    if (const int jamba_mpi_code = (call); jamba_mpi_code != MPI_SUCCESS) [[unlikely]]          \
      ::jamba::fail_mpi(__FILE__, __LINE__, #call, jamba_mpi_code, ::fmt::format(__VA_ARGS__)); \
  } while (false)

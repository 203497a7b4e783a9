#pragma once
// Errors of one rank become errors of all, where nothing is in flight.

#include <exception>
#include <new>
#include <string>

#include "kernels/core/errors.h"
#include "parallel/comm/communicator.h"

namespace jamba {

/// Throws the error type of this exit code, marked as thrown on all ranks.
[[noreturn]] void throw_on_all_ranks(int exit_code, const std::string& message);

/// Runs f on every rank, then either returns on all of them or throws on all of them the error of
/// the lowest rank that failed.
template <class F>
void agreed(Communicator& comm, F&& f) {
  int exit_code = 0;
  std::string message;
  try {
    f();
  } catch (const Error& e) {
    exit_code = static_cast<int>(e.exit_code());
    message = e.what();
  } catch (const std::bad_alloc& e) {
    exit_code = static_cast<int>(ExitCode::check_failed);
    message = e.what();
  } catch (const std::exception& e) {
    exit_code = static_cast<int>(ExitCode::bug);
    message = e.what();
  }
  const Agreement agreement = agree(comm, exit_code, message);
  if (agreement.rank < 0) return;
  const bool alone = comm.size() == 1;
  throw_on_all_ranks(agreement.exit_code, alone ? agreement.message
                                                : fmt::format("rank {} of {}: {}", agreement.rank,
                                                              comm.size(), agreement.message));
}

}  // namespace jamba

#include "trainer/checkpoint/agreed.h"

namespace jamba {

namespace {

template <class E>
[[noreturn]] void raise(E error) {
  error.set_on_all_ranks();
  throw error;
}

}  // namespace

void throw_on_all_ranks(int exit_code, const std::string& message) {
  const auto code = static_cast<ExitCode>(exit_code);
  switch (code) {
    case ExitCode::usage:
      raise(ConfigError(message));
    case ExitCode::bad_data:
      raise(DataError(message));
    case ExitCode::no_input:
      raise(NoInputError(message));
    case ExitCode::bug:
      raise(LogicError(message));
    case ExitCode::cannot_create:
      raise(CannotCreateError(message));
    case ExitCode::io:
      raise(IoError(message));
    case ExitCode::communication:
      raise(CommError(message));
    case ExitCode::bad_checkpoint:
      raise(CheckpointError(message));
    case ExitCode::diverged:
      raise(DivergedError(message));
    default:
      raise(Error(code, message));
  }
}

}  // namespace jamba

#pragma once
// Typed exceptions, the exit code each one maps to, and the always-on contract check.

#ifndef __CUDACC__
#include <fmt/format.h>
#endif

#include <stdexcept>
#include <string>
#include <utility>

namespace jamba {

/// Exit codes of every command. Scripts rely on them.
enum class ExitCode : int {
  ok = 0,
  check_failed = 1,
  usage = 2,
  bad_data = 65,
  no_input = 66,
  bug = 70,
  cannot_create = 73,
  io = 74,
  communication = 75,
  bad_checkpoint = 76,
  diverged = 78,
  preempted = 85,
};

/// Base of all jamba errors. A message says what, where, got and expected, and what to do.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode exit_code() const { return code_; }

  /// Whether every rank of the job throws this same error at this point, so that none is left
  /// waiting for another. The thrower knows.
  bool on_all_ranks() const { return on_all_ranks_; }
  void set_on_all_ranks() { on_all_ranks_ = true; }

 private:
  ExitCode code_;
  bool on_all_ranks_ = false;
};

#define JAMBA_DEFINE_ERROR(Name, code)                                    \
  class Name : public Error {                                             \
   public:                                                                \
    explicit Name(const std::string& message) : Error((code), message) {} \
  }

/// A config file or override is wrong; the message holds every fault found, one a line.
JAMBA_DEFINE_ERROR(ConfigError, ExitCode::usage);
/// A file holds content that breaks its format's rules.
JAMBA_DEFINE_ERROR(DataError, ExitCode::bad_data);
/// A file or directory that was named does not exist.
JAMBA_DEFINE_ERROR(NoInputError, ExitCode::no_input);
/// An output file or directory cannot be created.
JAMBA_DEFINE_ERROR(CannotCreateError, ExitCode::cannot_create);
/// Reading or writing failed: disk full, I/O error.
JAMBA_DEFINE_ERROR(IoError, ExitCode::io);
/// A collective failed; its communicator is unusable afterwards.
JAMBA_DEFINE_ERROR(CommError, ExitCode::communication);
/// A checkpoint is damaged, or belongs to another model.
JAMBA_DEFINE_ERROR(CheckpointError, ExitCode::bad_checkpoint);
/// Training cannot go on: too many non-finite steps in a row.
JAMBA_DEFINE_ERROR(DivergedError, ExitCode::diverged);
/// This build or device lacks the operation.
JAMBA_DEFINE_ERROR(UnsupportedError, ExitCode::usage);
/// A broken contract inside jamba: a bug, never a user's mistake.
JAMBA_DEFINE_ERROR(LogicError, ExitCode::bug);

#undef JAMBA_DEFINE_ERROR

[[noreturn]] void fail_check(const char* file, int line, const char* condition,
                             const std::string& message);

}  // namespace jamba

/// Throws LogicError unless `condition` holds. Always on: use it for contracts of functions.
/// The further arguments are a fmt format string and its values; nvcc cannot compile fmt, so its
/// messages hold them as they are written.
#ifdef __CUDACC__
#define JAMBA_CHECK_MESSAGE(...) #__VA_ARGS__
#else
#define JAMBA_CHECK_MESSAGE(...) ::fmt::format("" __VA_ARGS__)
#endif
#define JAMBA_CHECK(condition, ...)                                                          \
  do {                                                                                       \
    if (!(condition)) [[unlikely]]                                                           \
      ::jamba::fail_check(__FILE__, __LINE__, #condition, JAMBA_CHECK_MESSAGE(__VA_ARGS__)); \
  } while (false)

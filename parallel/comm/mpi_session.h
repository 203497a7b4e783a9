#pragma once
// MPI's lifetime and the world communicator.

#include <memory>

#include "parallel/comm/communicator.h"

namespace jamba {

/// Initialises MPI on construction and finalises it on destruction. First in main, destroyed last.
class MpiSession {
 public:
  MpiSession(int& argc, char**& argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  Communicator& world() { return *world_; }
  /// Ranks of this job on this host, and this process's place among them.
  int local_size() const { return local_size_; }
  int local_rank() const { return local_rank_; }

  /// Ends every rank at once with this exit code; for errors while peers may be blocked.
  [[noreturn]] void abort(int exit_code);

 private:
  std::unique_ptr<Communicator> world_;
  int local_size_ = 1;
  int local_rank_ = 0;
};

/// Name and version of the MPI library.
std::string mpi_version();

}  // namespace jamba

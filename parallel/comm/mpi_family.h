#pragma once
// What the groups of one MPI job share. Private to this folder.

#include <vector>

#include "parallel/comm/buffer_pool.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/mpi_check.h"

namespace jamba {

class MpiOperation;

/// MPI's own handle, for headers that must not include mpi.h.
struct MpiComm {
  MPI_Comm value;
};

struct MpiFamily {
  std::int64_t max_count;
  MPI_Comm diagnosis = MPI_COMM_NULL;  // of all ranks: where each is, once a wait is over time
  BufferPool buffers{};
  std::vector<MpiOperation*> in_flight{};
  std::vector<Buffer> lost{};  // MPI may still write to what an abandoned operation received into
  bool abandoned = false;

  /// Moves everything in flight; whether anything moved.
  bool poll();
};

/// A group as its operations see it.
struct MpiGroup {
  MpiFamily& family;
  const Communicator& ranks;
  MPI_Comm comm = MPI_COMM_NULL;
};

/// What a message is for: it never meets one of another purpose, whatever is in flight.
enum class MpiTag { call, rows, first, second, message_call, message };
int mpi_tag(MpiTag purpose, std::int64_t number, int slot);

/// Messages in flight that are done together.
class MpiRequests {
 public:
  void send(const MpiGroup&, int to, const void* data, std::int64_t bytes, int tag);
  void receive(const MpiGroup&, int from, void* data, std::int64_t bytes, int tag);
  /// Whether all are done.
  bool test();
  /// Ranks that a message is still expected from, or sent to.
  std::vector<int> waiting_for();
  bool empty() const { return requests_.empty(); }
  void clear();

 private:
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;
};

}  // namespace jamba

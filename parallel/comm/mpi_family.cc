#include "parallel/comm/mpi_family.h"

#include <algorithm>

#include "parallel/comm/mpi_operation.h"

namespace jamba {

void fail_mpi(const char* file, int line, const char* call, int code, const std::string& what) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CommError(fmt::format("{} failed: {} ({} at {}:{})", what,
                              std::string_view(text, static_cast<std::size_t>(length)), call, file,
                              line));
}

bool MpiFamily::poll() {
  bool moved = false;
  for (MpiOperation* const operation : in_flight) moved |= operation->poll();
  return moved;
}

int mpi_tag(MpiTag purpose, std::int64_t number, int slot) {
  // MPI allows tags below 2^15 at least, Open MPI below 2^31.
  constexpr std::int64_t kNumbers = std::int64_t{1} << 22;
  return static_cast<int>((number % kNumbers) << 7 | slot << 3) | static_cast<int>(purpose);
}

void MpiRequests::send(const MpiGroup& group, int to, const void* data, std::int64_t bytes,
                       int tag) {
  peers_.push_back(to);
  JAMBA_MPI_CHECK(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, tag, group.comm,
                            &requests_.emplace_back(MPI_REQUEST_NULL)),
                  "sending {} bytes to rank {} of {}", bytes, to, group.ranks.axis());
}

void MpiRequests::receive(const MpiGroup& group, int from, void* data, std::int64_t bytes,
                          int tag) {
  peers_.push_back(from);
  JAMBA_MPI_CHECK(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, tag, group.comm,
                            &requests_.emplace_back(MPI_REQUEST_NULL)),
                  "receiving {} bytes from rank {} of {}", bytes, from, group.ranks.axis());
}

bool MpiRequests::test() {
  int done = 0;
  JAMBA_MPI_CHECK(
      MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
      "exchanging messages");
  return done != 0;
}

std::vector<int> MpiRequests::waiting_for() {
  std::vector<int> ranks;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    int done = 0;
    JAMBA_MPI_CHECK(MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE), "exchanging messages");
    if (done == 0 && std::ranges::find(ranks, peers_[i]) == ranks.end()) ranks.push_back(peers_[i]);
  }
  return ranks;
}

void MpiRequests::clear() {
  requests_.clear();
  peers_.clear();
}

}  // namespace jamba

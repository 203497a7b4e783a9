#include "parallel/comm/mpi_communicator.h"

#include <exception>

#include "parallel/comm/mpi_operation.h"

namespace jamba {

namespace {

/// Polls of everything in flight in progress(): one alone moves too little between two layers.
constexpr int kPollsPerProgress = 4;

int rank_in(MPI_Comm comm) {
  int rank = 0;
  JAMBA_MPI_CHECK(MPI_Comm_rank(comm, &rank), "finding this rank");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  JAMBA_MPI_CHECK(MPI_Comm_size(comm, &size), "finding the number of ranks");
  return size;
}

MPI_Comm duplicate_of_world() {
  MPI_Comm comm = MPI_COMM_NULL;
  JAMBA_MPI_CHECK(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "making the group of all ranks");
  return comm;
}

}  // namespace

MpiCommunicator::MpiCommunicator(std::int64_t max_count)
    : Communicator("world", rank_in(MPI_COMM_WORLD), size_of(MPI_COMM_WORLD)) {
  JAMBA_CHECK(max_count >= 1 && max_count <= std::numeric_limits<int>::max(), "got {}", max_count);
  own_family_ = std::make_unique<MpiFamily>(
      MpiFamily{.max_count = max_count, .diagnosis = duplicate_of_world()});
  group_ = std::make_unique<MpiGroup>(
      MpiGroup{.family = *own_family_, .ranks = *this, .comm = duplicate_of_world()});
}

MpiCommunicator::MpiCommunicator(const std::string& axis, MpiFamily& family, MpiComm comm)
    : Communicator(axis, rank_in(comm.value), size_of(comm.value)),
      group_(std::make_unique<MpiGroup>(
          MpiGroup{.family = family, .ranks = *this, .comm = comm.value})) {}

MpiCommunicator::~MpiCommunicator() {
  // Others may be blocked in what this rank has left.
  if (std::uncaught_exceptions() > 0 || group_->family.abandoned) return;
  MPI_Comm_free(&group_->comm);
  if (own_family_) MPI_Comm_free(&own_family_->diagnosis);
}

bool MpiCommunicator::idle() const {
  return group_->family.in_flight.empty() && !group_->family.abandoned;
}

void MpiCommunicator::progress() {
  for (int i = 0; i < kPollsPerProgress && !group_->family.in_flight.empty(); ++i) {
    group_->family.poll();
  }
}

std::unique_ptr<RunningOperation> MpiCommunicator::start(Stream& stream, const Operation& op) {
  return std::make_unique<MpiOperation>(*group_, stream, op);
}

std::unique_ptr<Communicator> MpiCommunicator::do_split(const std::string& axis, int color) {
  MpiComm part{MPI_COMM_NULL};
  JAMBA_MPI_CHECK(MPI_Comm_split(group_->comm, color, rank(), &part.value), "splitting {} into {}",
                  this->axis(), axis);
  return std::unique_ptr<Communicator>(new MpiCommunicator(axis, group_->family, part));
}

}  // namespace jamba

// NCCL's twin on MPI: rejects what it does not implement, and what the real one does not promise to
// take. Data passes through host memory, since MPI may touch its buffers whenever it is called.

#include <mpi.h>
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/cuda_emulation/streams.h"

using cuda_emulation::fail;

namespace {

constexpr int kCreateTag = 77;
constexpr int kSignature = 5;
bool connections_broken = false;

void check(int code, const char* what) {
  if (code != MPI_SUCCESS) fail(std::string("NCCL's twin: MPI fails at ") + what);
}

std::size_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8:
      return 1;
    case ncclInt64:
      return 8;
    case ncclFloat32:
      return 4;
  }
  fail("NCCL: another data type");
}

MPI_Datatype mpi_type(ncclDataType_t type) {
  return type == ncclUint8 ? MPI_BYTE : type == ncclInt64 ? MPI_INT64_T : MPI_FLOAT;
}

enum class Kind { send, receive, all_reduce, reduce_scatter, all_gather, broadcast };

struct Call {
  Kind kind;
  const char* send = nullptr;
  char* receive = nullptr;
  std::size_t send_bytes = 0, receive_bytes = 0;
  ncclDataType_t type = ncclUint8;
  ncclRedOp_t op = ncclSum;
  int peer = -1;
  // While it runs.
  std::vector<std::int64_t> asked{};  // by each rank: kSignature numbers
  bool agreed = false;
  std::vector<char> from{}, to{};
  MPI_Request request = MPI_REQUEST_NULL;
};

}  // namespace

struct ncclComm {
  std::string folder;  // where the ranks meet
  int rank, size;
  MPI_Comm comm = MPI_COMM_NULL;
  bool aborted = false;
  std::vector<Call> issued{};  // since the group's start
  cudaStream_t stream = nullptr;
};

namespace {

struct Group {
  int depth = 0;
  std::vector<ncclComm_t> comms;  // with calls
};
Group& group() {
  static Group the_group;
  return the_group;
}

int count_of(std::size_t bytes, ncclDataType_t type) {
  return static_cast<int>(bytes / bytes_of(type));
}

bool is_message(const Call& call) { return call.kind <= Kind::receive; }

/// Ranks tell each other what they ask for: the real one does not, and hangs or mixes up data where
/// they do not ask for the same.
void compare(const ncclComm& c, Call& call) {
  call.asked.resize(static_cast<std::size_t>(c.size) * kSignature);
  const std::array<std::int64_t, kSignature> mine = {
      static_cast<std::int64_t>(call.kind), static_cast<std::int64_t>(call.receive_bytes),
      static_cast<std::int64_t>(call.type), static_cast<std::int64_t>(call.op), call.peer};
  std::copy(mine.begin(), mine.end(), call.asked.begin() + c.rank * kSignature);
  check(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, call.asked.data(), kSignature,
                       MPI_INT64_T, c.comm, &call.request),
        "comparing");
}
void expect_agreement(const ncclComm& c, const Call& call) {
  for (int r = 1; r < c.size; ++r) {
    if (!std::equal(call.asked.begin(), call.asked.begin() + kSignature,
                    call.asked.begin() + r * kSignature))
      fail("NCCL: ranks 0 and " + std::to_string(r) + " do not ask for the same collective");
  }
}

/// Sends and posts what a call needs.
void begin(const ncclComm& c, Call& call) {
  if (call.send != nullptr) {
    cuda_emulation::expect_device_range(call.send, call.send_bytes, "NCCL: sent");
    cuda_emulation::expect_written(call.send, call.send_bytes, "NCCL: sent");
    call.from.assign(call.send, call.send + call.send_bytes);
  }
  call.to.resize(call.receive_bytes);
  const MPI_Op op = call.op == ncclSum ? MPI_SUM : MPI_MAX;
  switch (call.kind) {
    case Kind::send:
      return check(MPI_Isend(call.from.data(), static_cast<int>(call.send_bytes), MPI_BYTE,
                             call.peer, 0, c.comm, &call.request),
                   "sending");
    case Kind::receive:
      return check(MPI_Irecv(call.to.data(), static_cast<int>(call.receive_bytes), MPI_BYTE,
                             call.peer, 0, c.comm, &call.request),
                   "receiving");
    case Kind::all_reduce:
      return check(
          MPI_Iallreduce(call.from.data(), call.to.data(), count_of(call.send_bytes, call.type),
                         mpi_type(call.type), op, c.comm, &call.request),
          "all-reduce");
    case Kind::reduce_scatter:
      return check(MPI_Ireduce_scatter_block(call.from.data(), call.to.data(),
                                             count_of(call.receive_bytes, call.type),
                                             mpi_type(call.type), op, c.comm, &call.request),
                   "reduce-scatter");
    case Kind::all_gather:
      return check(MPI_Iallgather(call.from.data(), static_cast<int>(call.send_bytes), MPI_BYTE,
                                  call.to.data(), static_cast<int>(call.send_bytes), MPI_BYTE,
                                  c.comm, &call.request),
                   "all-gather");
    case Kind::broadcast:
      if (c.rank == call.peer) call.to = call.from;
      return check(MPI_Ibcast(call.to.data(), static_cast<int>(call.receive_bytes), MPI_BYTE,
                              call.peer, c.comm, &call.request),
                   "broadcast");
  }
}

void end(const Call& call) {
  if (call.receive == nullptr) return;
  cuda_emulation::expect_device_range(call.receive, call.receive_bytes, "NCCL: received");
  std::memcpy(call.receive, call.to.data(), call.receive_bytes);
  cuda_emulation::mark_written(call.receive, call.receive_bytes);
}

/// Whether the call's data is there. One that has ended may be asked again.
bool has_ended(const ncclComm& c, Call& call) {
  const bool pending = call.request != MPI_REQUEST_NULL;
  int done = 0;
  MPI_Status status;
  check(PMPI_Test(&call.request, &done, &status), "waiting");
  if (done == 0) return false;
  if (call.kind == Kind::receive && pending) {
    int count = 0;
    check(MPI_Get_count(&status, MPI_BYTE, &count), "counting");
    if (static_cast<std::size_t>(count) != call.receive_bytes)
      fail("NCCL: rank " + std::to_string(call.peer) + " sends " + std::to_string(count) +
           " bytes where " + std::to_string(call.receive_bytes) + " are received");
  }
  if (is_message(call) || call.agreed) return true;
  expect_agreement(c, call);
  call.agreed = true;
  const cuda_emulation::DeviceAccess access;
  begin(c, call);
  return false;
}

/// A group's calls of one communicator, as one piece of a stream's work.
void issue(ncclComm_t c) {
  const auto calls = std::make_shared<std::vector<Call>>(std::move(c->issued));
  c->issued.clear();
  const auto begun = std::make_shared<bool>(false);
  cuda_emulation::enqueue(c->stream, "NCCL", [c, calls, begun] {
    if (c->aborted) {
      // MPI may still write where these calls asked it to.
      static auto* const abandoned = new std::vector<std::shared_ptr<std::vector<Call>>>;
      abandoned->push_back(calls);
      return true;
    }
    if (!*begun) {
      const cuda_emulation::DeviceAccess access;
      for (Call& call : *calls) is_message(call) ? begin(*c, call) : compare(*c, call);
      *begun = true;
    }
    for (Call& call : *calls) {
      if (!has_ended(*c, call)) return false;
    }
    const cuda_emulation::DeviceAccess access;
    for (const Call& call : *calls) end(call);
    return true;
  });
  c->stream = nullptr;
}

ncclResult_t add(ncclComm_t c, cudaStream_t stream, Call call) {
  if (c == nullptr || c->comm == MPI_COMM_NULL) fail("NCCL: a communicator that is not ready");
  if (c->stream != nullptr && c->stream != stream)
    fail("NCCL: one communicator on two streams in a group");
  if (std::max(call.send_bytes, call.receive_bytes) > std::numeric_limits<int>::max())
    fail("NCCL: more bytes than the twin can send at once");
  if (call.peer >= c->size || (call.kind <= Kind::receive && call.peer < 0))
    fail("NCCL: rank " + std::to_string(call.peer) + " of " + std::to_string(c->size));
  if (call.send != nullptr)
    cuda_emulation::expect_device_range(call.send, call.send_bytes, "NCCL: sent");
  if (call.receive != nullptr)
    cuda_emulation::expect_device_range(call.receive, call.receive_bytes, "NCCL: received");
  c->stream = stream;
  if (c->issued.empty()) group().comms.push_back(c);
  c->issued.push_back(std::move(call));
  if (group().depth == 0) {
    issue(c);
    group().comms.clear();
  }
  return ncclSuccess;
}

std::filesystem::path file_of(const ncclComm& c, int rank) {
  return std::filesystem::path(c.folder) / std::to_string(rank);
}

}  // namespace

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess ? "no error" : "an error of NCCL's twin";
}
ncclResult_t ncclGetVersion(int* version) {
  *version = 0;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::random_device random;
  std::snprintf(id->internal, sizeof id->internal, "/tmp/nccl-twin-%d-%08x%08x", getpid(), random(),
                random());
  std::filesystem::create_directory(id->internal);
  return ncclSuccess;
}

/// Ranks tell each other in files which MPI ranks they are, as the real one does over sockets.
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->blocking != 0) fail("NCCL: a start that blocks");
  if (rank < 0 || rank >= size) return ncclInvalidArgument;
  auto* const c = new ncclComm{.folder = id.internal, .rank = rank, .size = size};
  int world_rank = 0;
  check(MPI_Comm_rank(MPI_COMM_WORLD, &world_rank), "asking for the rank");
  const std::filesystem::path file = file_of(*c, rank), unfinished = file.string() + ".new";
  std::ofstream(unfinished) << world_rank;
  std::filesystem::rename(unfinished, file);
  *comm = c;
  return ncclInProgress;
}

void cuda_emulation::break_connections(bool broken) { connections_broken = broken; }

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* state) {
  *state = ncclSuccess;
  if (c->comm != MPI_COMM_NULL) {
    if (connections_broken) *state = ncclRemoteError;
    return ncclSuccess;
  }
  std::vector<int> ranks;
  for (int r = 0; r < c->size; ++r) {
    int world_rank = -1;
    std::ifstream file(file_of(*c, r));
    if (!(file >> world_rank)) {
      *state = ncclInProgress;
      return ncclSuccess;
    }
    ranks.push_back(world_rank);
  }
  MPI_Group world = MPI_GROUP_NULL, mine = MPI_GROUP_NULL;
  check(MPI_Comm_group(MPI_COMM_WORLD, &world), "making a group");
  check(MPI_Group_incl(world, c->size, ranks.data(), &mine), "making a group");
  check(MPI_Comm_create_group(MPI_COMM_WORLD, mine, kCreateTag, &c->comm), "making a group");
  MPI_Group_free(&mine);
  MPI_Group_free(&world);
  check(MPI_Barrier(c->comm), "making a group");
  if (c->rank == 0) std::filesystem::remove_all(c->folder);
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t c) {
  if (!c->issued.empty()) fail("NCCL: destroyed within a group");
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (c->comm != MPI_COMM_NULL && finalized == 0) MPI_Comm_free(&c->comm);
  return ncclSuccess;  // work that was issued may still look at it, so it stays
}

ncclResult_t ncclCommAbort(ncclComm_t c) {
  c->aborted = true;
  if (c->comm == MPI_COMM_NULL && c->rank == 0) std::filesystem::remove_all(c->folder);
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group().depth == 0) fail("NCCL: the end of a group that has not begun");
  if (--group().depth > 0) return ncclSuccess;
  for (const ncclComm_t c : group().comms) issue(c);
  group().comms.clear();
  return ncclSuccess;
}

ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t c, cudaStream_t stream) {
  if (group().depth == 0 || peer == c->rank) fail("NCCL: a message outside a group, or to itself");
  return add(c, stream,
             {.kind = Kind::send,
              .send = static_cast<const char*>(data),
              .send_bytes = count * bytes_of(type),
              .peer = peer});
}

ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t stream) {
  if (group().depth == 0 || peer == c->rank) fail("NCCL: a message outside a group, or to itself");
  return add(c, stream,
             {.kind = Kind::receive,
              .receive = static_cast<char*>(data),
              .receive_bytes = count * bytes_of(type),
              .peer = peer});
}

ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t c, cudaStream_t stream) {
  const std::size_t bytes = count * bytes_of(type);
  return add(c, stream,
             {.kind = Kind::all_reduce,
              .send = static_cast<const char*>(send),
              .receive = static_cast<char*>(receive),
              .send_bytes = bytes,
              .receive_bytes = bytes,
              .type = type,
              .op = op});
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t count,
                               ncclDataType_t type, ncclRedOp_t op, ncclComm_t c,
                               cudaStream_t stream) {
  const std::size_t bytes = count * bytes_of(type);
  return add(c, stream,
             {.kind = Kind::reduce_scatter,
              .send = static_cast<const char*>(send),
              .receive = static_cast<char*>(receive),
              .send_bytes = bytes * static_cast<std::size_t>(c->size),
              .receive_bytes = bytes,
              .type = type,
              .op = op});
}

ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclComm_t c, cudaStream_t stream) {
  const std::size_t bytes = count * bytes_of(type);
  return add(c, stream,
             {.kind = Kind::all_gather,
              .send = static_cast<const char*>(send),
              .receive = static_cast<char*>(receive),
              .send_bytes = bytes,
              .receive_bytes = bytes * static_cast<std::size_t>(c->size),
              .type = type});
}

ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           int root, ncclComm_t c, cudaStream_t stream) {
  const std::size_t bytes = count * bytes_of(type);
  const bool sends = root == c->rank;
  return add(c, stream,
             {.kind = Kind::broadcast,
              .send = sends ? static_cast<const char*>(send) : nullptr,
              .receive = static_cast<char*>(receive),
              .send_bytes = sends ? bytes : 0,
              .receive_bytes = bytes,
              .type = type,
              .peer = root});
}

/// Stands before MPI's own. A device goes on while the host waits for messages of other ranks; here
/// its work is done meanwhile, or ranks would wait for each other's for ever.
int MPI_Testall(int count, MPI_Request requests[], int* done, MPI_Status statuses[]) {
  cuda_emulation::make_progress();
  return PMPI_Testall(count, requests, done, statuses);
}

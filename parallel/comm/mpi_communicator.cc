#include "parallel/comm/mpi_communicator.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/core/profile.h"
#include "parallel/comm/arguments.h"
#include "parallel/comm/mpi_check.h"

namespace jamba {

namespace {

/// Elements a reduction moves in one MPI collective. Each poll of MPI moves a bounded number of
/// fragments of every collective in flight, so several small ones overlap better than a large one.
constexpr std::int64_t kReducePiece = 65536;

/// Polls of each collective in progress(): one alone moves too little between two layers.
constexpr int kPollsPerProgress = 4;

MPI_Datatype mpi_type(DType dtype) { return dtype == DType::f32 ? MPI_FLOAT : MPI_INT64_T; }
MPI_Op mpi_op(ReduceOp op) { return op == ReduceOp::sum ? MPI_SUM : MPI_MAX; }

}  // namespace

void fail_mpi(const char* file, int line, const char* call, int code, const std::string& what) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CommError(fmt::format("{} failed: {} ({} at {}:{})", what,
                              std::string_view(text, static_cast<std::size_t>(length)), call, file,
                              line));
}

/// One all_reduce in flight, as pieces. It always takes this path, blocking or not, so that both
/// give the same bits.
class MpiCommunicator::Reduction final : public PendingCollective {
 public:
  Reduction(MpiCommunicator& group, Tensor x, ReduceOp op) : group_(group), x_(x), op_(op) {
    group.in_flight_.push_back(this);
  }

  void start() {
    const std::int64_t piece = std::min(kReducePiece, group_.max_count_);
    auto* const bytes = static_cast<std::byte*>(x_.raw());
    requests_.reserve(static_cast<std::size_t>((x_.numel() + piece - 1) / piece));
    for (std::int64_t begin = 0; begin < x_.numel(); begin += piece) {
      const auto count = static_cast<int>(std::min(piece, x_.numel() - begin));
      MPI_Request& request = requests_.emplace_back(MPI_REQUEST_NULL);
      JAMBA_MPI_CHECK(MPI_Iallreduce(MPI_IN_PLACE, bytes + begin * dtype_bytes(x_.dtype()), count,
                                     mpi_type(x_.dtype()), mpi_op(op_), MPI_COMM_WORLD, &request),
                      "{}", describe());
    }
  }

  ~Reduction() override {
    std::erase(group_.in_flight_, this);
    if (!done_) group_.abandoned_ = true;
  }

  void wait() override {
    JAMBA_MPI_CHECK(MPI_Waitall(num_requests(), requests_.data(), MPI_STATUSES_IGNORE), "{}",
                    describe());
    done_ = true;
  }

  /// True once all pieces have arrived.
  bool poll() {
    int done = 0;
    JAMBA_MPI_CHECK(MPI_Testall(num_requests(), requests_.data(), &done, MPI_STATUSES_IGNORE), "{}",
                    describe());
    return done != 0;
  }

 private:
  int num_requests() const { return static_cast<int>(requests_.size()); }
  std::string describe() const {
    return fmt::format("all_reduce {} of {} over {} ranks", reduce_op_name(op_), x_.describe(),
                       group_.size());
  }

  MpiCommunicator& group_;
  Tensor x_;
  ReduceOp op_;
  std::vector<MPI_Request> requests_;
  bool done_ = false;
};

MpiCommunicator::MpiCommunicator(std::int64_t max_count) : max_count_(max_count) {
  JAMBA_CHECK(max_count >= 1 && max_count <= std::numeric_limits<int>::max(), "got {}", max_count);
  JAMBA_MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "finding this rank");
  JAMBA_MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &size_), "finding the number of ranks");
}

MpiCommunicator::~MpiCommunicator() = default;

bool MpiCommunicator::idle() const { return in_flight_.empty() && !abandoned_; }

void MpiCommunicator::all_reduce(Stream& stream, Tensor x, ReduceOp op) {
  check_reduce("all_reduce", x);
  const ProfileScope timer(stream.profile(), Part::communication);
  Reduction reduction(*this, x, op);
  reduction.start();
  reduction.wait();
}

std::unique_ptr<PendingCollective> MpiCommunicator::start_all_reduce(Stream&, Tensor x,
                                                                     ReduceOp op) {
  check_reduce("start_all_reduce", x);
  auto reduction = std::make_unique<Reduction>(*this, x, op);
  reduction->start();
  return reduction;
}

void MpiCommunicator::progress() {
  for (int poll = 0; poll < kPollsPerProgress; ++poll) {
    bool all_done = true;
    for (Reduction* reduction : in_flight_) all_done &= reduction->poll();
    if (all_done) return;
  }
}

void MpiCommunicator::all_gather(Stream& stream, Tensor out, Tensor x) {
  check_all_gather(out, x, size_);
  const ProfileScope timer(stream.profile(), Part::communication);
  const Tensor mine = gathered_slice(out, x, rank_);
  if (x.bytes() > 0 && mine.raw() != x.raw()) {
    std::memcpy(mine.raw(), x.raw(), static_cast<std::size_t>(x.bytes()));
  }
  if (x.bytes() <= max_count_) {
    JAMBA_MPI_CHECK(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, out.raw(),
                                  static_cast<int>(x.bytes()), MPI_BYTE, MPI_COMM_WORLD),
                    "all_gather of {} over {} ranks", x.describe(), size_);
    return;
  }
  for (int root = 0; root < size_; ++root) {
    broadcast_bytes(gathered_slice(out, x, root).raw(), x.bytes(), root);
  }
}

void MpiCommunicator::broadcast(Stream& stream, Tensor x, int root) {
  check_broadcast(x, root, size_);
  const ProfileScope timer(stream.profile(), Part::communication);
  broadcast_bytes(x.raw(), x.bytes(), root);
}

void MpiCommunicator::broadcast_bytes(void* data, std::int64_t bytes, int root) {
  for (std::int64_t begin = 0; begin < bytes; begin += max_count_) {
    const std::int64_t count = std::min(max_count_, bytes - begin);
    JAMBA_MPI_CHECK(MPI_Bcast(static_cast<std::byte*>(data) + begin, static_cast<int>(count),
                              MPI_BYTE, root, MPI_COMM_WORLD),
                    "broadcast of {} bytes from rank {} over {} ranks", bytes, root, size_);
  }
}

void MpiCommunicator::barrier() {
  JAMBA_MPI_CHECK(MPI_Barrier(MPI_COMM_WORLD), "barrier over {} ranks", size_);
}

}  // namespace jamba
